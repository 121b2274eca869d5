//! Authentication: JSON Web Tokens, signed with HS256 (lines 78 to 102). Tokens expire by the hub's clock, which is
//! passed in.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Map, Value};

use crate::machine::Handshake;

/// The longest user name in bytes; names are kept as long as their connections.
const MAX_USER: usize = 512;

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// A token was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is not a token, or not signed with the hub's key.
    Forged,
    /// It has expired, or is not valid yet.
    Expired,
    /// It names no user.
    Nameless,
}

/// Returns the token of an upgrade request: from the query, otherwise from the header (lines 82 to 93).
pub fn request_token(handshake: &Handshake, query: bool, header: bool) -> Option<String> {
    let queried = handshake.query.iter().filter(|_| query).find(|(name, _)| name == "token");
    let queried = queried.map(|(_, token)| token.as_str()).filter(|token| !token.is_empty());
    queried.or_else(|| bearer_token(handshake).filter(|_| header)).map(str::to_owned)
}

fn bearer_token(handshake: &Handshake) -> Option<&str> {
    let (_, value) = handshake.headers.iter().find(|(name, _)| name == "authorization")?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Returns the claims of a token signed with `key`.
pub fn verify(token: &str, key: &hmac::Key) -> Result<Claims, TokenError> {
    let (algorithm, claims) = decode_token(token)?;
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Forged)?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Forged)?;
    let signed = hmac::verify(key, signed.as_bytes(), &signature).is_ok();
    if signed && algorithm == "HS256" { Ok(claims) } else { Err(TokenError::Forged) }
}

/// Returns the algorithm and the claims of a token without checking its signature.
pub fn decode_token(token: &str) -> Result<(String, Claims), TokenError> {
    let part = |text: &str| -> Result<Map<String, Value>, TokenError> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Forged)?;
        serde_json::from_slice(&json).map_err(|_| TokenError::Forged)
    };
    let (signed, _) = token.rsplit_once('.').ok_or(TokenError::Forged)?;
    let (header, claims) = signed.rsplit_once('.').ok_or(TokenError::Forged)?;
    let algorithm = part(header)?.get("alg").and_then(Value::as_str).ok_or(TokenError::Forged)?.to_owned();
    Ok((algorithm, part(claims)?))
}

/// Checks that a token is valid at this time (Unix milliseconds). One without `exp` does not expire.
pub fn check_time(claims: &Claims, unix_ms: u64) -> Result<(), TokenError> {
    let seconds = |name| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(TokenError::Forged),
    };
    let now = unix_ms as f64 / 1000.0;
    let over = seconds("exp")?.is_some_and(|exp| exp <= now);
    let early = seconds("nbf")?.is_some_and(|nbf| nbf > now);
    if over || early { Err(TokenError::Expired) } else { Ok(()) }
}

/// Returns the user that a token names.
pub fn token_user(claims: &Claims, claim: &str) -> Result<String, TokenError> {
    match claims.get(claim).and_then(Value::as_str) {
        Some(user) if !user.is_empty() && user.len() <= MAX_USER => Ok(user.to_owned()),
        _ => Err(TokenError::Nameless),
    }
}

#[cfg(test)]
pub mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// Signs a token with these claims.
    pub fn sign(claims: &Value, key: &str, algorithm: &str) -> String {
        let header = BASE64_URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": algorithm }).to_string());
        let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        let hash = if algorithm == "HS512" { hmac::HMAC_SHA512 } else { hmac::HMAC_SHA256 };
        let signature = hmac::sign(&hmac::Key::new(hash, key.as_bytes()), signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    #[rstest]
    #[case("t", "Bearer h", Some("t"))]
    #[case("", "Bearer h", Some("h"))]
    #[case("", "bearer  h ", Some("h"))]
    #[case("", "Basic h", None)]
    #[case("", "Bearer", None)]
    #[case("", "", None)]
    fn the_token_is_taken_from_the_query_or_else_from_the_header(
        #[case] query: &str,
        #[case] header: &str,
        #[case] want: Option<&str>,
    ) {
        let handshake = Handshake {
            query: vec![("token".to_owned(), query.to_owned())],
            headers: vec![("authorization".to_owned(), header.to_owned())],
            ..Handshake::default()
        };
        assert_eq!(request_token(&handshake, true, true).as_deref(), want);
    }

    /// The example of RFC 7515, A.1, unchanged or with one part changed.
    #[rstest]
    #[case("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", true)]
    #[case("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl", false)]
    #[case("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjQ", false)]
    #[case("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "", false)]
    #[case("eyJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", false)]
    fn only_tokens_with_a_valid_signature_are_accepted(
        #[case] header: &str,
        #[case] signature: &str,
        #[case] good: bool,
    ) {
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_URL_SAFE_NO_PAD.decode(key).unwrap());
        let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let want = json!({ "iss": "joe", "exp": 1_300_819_380, "http://example.com/is_root": true });
        let claims = verify(&format!("{header}.{claims}.{signature}"), &key).map(Value::from);
        assert_eq!(claims, if good { Ok(want) } else { Err(TokenError::Forged) });
    }

    #[rstest]
    #[case(json!({}), Ok(()))]
    #[case(json!({ "exp": 1001 }), Ok(()))]
    #[case(json!({ "exp": 1000.5 }), Ok(()))]
    #[case(json!({ "exp": 1000 }), Err(TokenError::Expired))]
    #[case(json!({ "exp": -1 }), Err(TokenError::Expired))]
    #[case(json!({ "exp": "soon" }), Err(TokenError::Forged))]
    #[case(json!({ "exp": 2000, "nbf": 1001 }), Err(TokenError::Expired))]
    fn expired_and_not_yet_valid_tokens_are_refused(#[case] claims: Value, #[case] want: Result<(), TokenError>) {
        assert_eq!(check_time(claims.as_object().unwrap(), 1_000_000), want);
    }
}
