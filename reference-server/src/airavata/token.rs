//! Who is there: JSON Web Tokens, signed with HS256 (lines 78 to 102). Time is passed in, so that a token
//! expires when the hub's clock says so.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use crate::machine::Handshake;

/// The longest user name in bytes; names are kept as long as their connections.
const MAX_USER: usize = 512;

/// What a token says, once its signature has been found right.
pub type Claims = Map<String, Value>;

/// Why a token is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is no token, or not signed with our key.
    Forged,
    /// Its time is over, or has not begun.
    Expired,
    /// It names no user.
    Nameless,
}

/// The token that comes with an upgrade request: that of the query, else that of the header (lines 82 to 93).
pub fn presented(handshake: &Handshake, query: bool, header: bool) -> Option<String> {
    let queried = handshake.query.iter().filter(|_| query).find(|(name, _)| name == "token");
    let queried = queried.map(|(_, token)| token.as_str()).filter(|token| !token.is_empty());
    queried.or_else(|| bearer(handshake).filter(|_| header)).map(str::to_owned)
}

fn bearer(handshake: &Handshake) -> Option<&str> {
    let (_, value) = handshake.headers.iter().find(|(name, _)| name == "authorization")?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The claims of a token signed with `key`.
pub fn verify(token: &str, key: &DecodingKey) -> Result<Claims, Bad> {
    let mut validation = Validation::new(Algorithm::HS256);
    // Times are judged by the hub's clock; the document speaks of no other claims.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    jsonwebtoken::decode(token, key, &validation).map(|token| token.claims).map_err(|_| Bad::Forged)
}

/// Whether the token is good at this time (Unix milliseconds). One without `exp` does not expire.
pub fn check_time(claims: &Claims, unix_ms: u64) -> Result<(), Bad> {
    let seconds = |name| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Bad::Forged),
    };
    let now = unix_ms as f64 / 1000.0;
    let over = seconds("exp")?.is_some_and(|exp| exp <= now);
    let early = seconds("nbf")?.is_some_and(|nbf| nbf > now);
    if over || early { Err(Bad::Expired) } else { Ok(()) }
}

/// The user that a token names.
pub fn user(claims: &Claims, claim: &str) -> Result<String, Bad> {
    match claims.get(claim).and_then(Value::as_str) {
        Some(user) if !user.is_empty() && user.len() <= MAX_USER => Ok(user.to_owned()),
        _ => Err(Bad::Nameless),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("t", "Bearer h", Some("t"))]
    #[case("", "Bearer h", Some("h"))]
    #[case("", "bearer  h ", Some("h"))]
    #[case("", "Basic h", None)]
    #[case("", "Bearer", None)]
    #[case("", "", None)]
    fn tokens_are_found(#[case] query: &str, #[case] header: &str, #[case] want: Option<&str>) {
        let handshake = Handshake {
            query: vec![("token".to_owned(), query.to_owned())],
            headers: vec![("authorization".to_owned(), header.to_owned())],
            ..Handshake::default()
        };
        assert_eq!(presented(&handshake, true, true).as_deref(), want);
    }

    #[rstest]
    #[case(json!({}), Ok(()))]
    #[case(json!({ "exp": 1001 }), Ok(()))]
    #[case(json!({ "exp": 1000.5 }), Ok(()))]
    #[case(json!({ "exp": 1000 }), Err(Bad::Expired))]
    #[case(json!({ "exp": -1 }), Err(Bad::Expired))]
    #[case(json!({ "exp": "soon" }), Err(Bad::Forged))]
    #[case(json!({ "exp": 2000, "nbf": 1001 }), Err(Bad::Expired))]
    fn tokens_have_their_time(#[case] claims: Value, #[case] want: Result<(), Bad>) {
        assert_eq!(check_time(claims.as_object().unwrap(), 1_000_000), want);
    }
}
