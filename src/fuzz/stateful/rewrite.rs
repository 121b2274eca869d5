//! Writes a JSON text of a `sends raw` step in another form that means the same.

use serde_json::{Value, json};

/// A form of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonForm {
    Plain,
    /// With white space between all tokens.
    Spaced,
    /// With one letter of each text as a `\u` escape.
    Escaped,
    /// In several frames.
    Fragments,
}

/// A part of the text of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Outside texts.
    Token,
    /// The first character of a text, after the quotation mark.
    First,
    /// Elsewhere in a text.
    Inside,
    /// In an expression.
    Expression,
}

/// Returns the argument of a `sends raw` step in another form; the same if it is not a text.
pub fn rewritten(raw: &Value, form: JsonForm) -> Value {
    let Some(text) = raw.get("text").and_then(Value::as_str).filter(|_| form != JsonForm::Plain) else {
        return raw.clone();
    };
    let parts = parts(text);
    match form {
        JsonForm::Plain => raw.clone(),
        JsonForm::Spaced => {
            let mut spaced = String::from(" ");
            for (letter, part) in parts {
                spaced.push(letter);
                if part == Part::Token && matches!(letter, ',' | ':' | '{' | '[') {
                    spaced.push_str(if letter == ',' { "\n\t" } else { " " });
                }
            }
            json!({ "text": spaced + "\n" })
        }
        JsonForm::Escaped => {
            let mut escaped = String::new();
            for (letter, part) in parts {
                if part == Part::First && letter.is_ascii_alphanumeric() {
                    escaped.push_str(&format!("\\u{:04x}", u32::from(letter)));
                } else {
                    escaped.push(letter);
                }
            }
            json!({ "text": escaped })
        }
        JsonForm::Fragments => {
            let mut pieces = vec![String::new()];
            for (letter, part) in parts {
                if let Some(last) = pieces.last_mut() {
                    last.push(letter);
                }
                if part == Part::Token && letter == ',' && pieces.len() < 3 {
                    pieces.push(String::new());
                }
            }
            if pieces.len() == 1 {
                return raw.clone();
            }
            let last = pieces.len() - 1;
            let frame = |(index, data): (usize, String)| match index {
                0 => json!({ "opcode": "text", "fin": false, "data": data }),
                _ => json!({ "opcode": "continuation", "fin": index == last, "data": data }),
            };
            json!({ "frames": pieces.into_iter().enumerate().map(frame).collect::<Vec<_>>() })
        }
    }
}

/// Returns each character with the part in which it is.
fn parts(text: &str) -> Vec<(char, Part)> {
    let mut found = Vec::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    // Whether a text has begun, and whether nothing of it has been read.
    let (mut inside, mut first) = (false, false);
    while let Some(letter) = letters.next() {
        if letter == '$' && letters.peek() == Some(&'{') {
            found.push((letter, Part::Expression));
            let (mut depth, mut quote) = (0, None);
            for letter in letters.by_ref() {
                found.push((letter, Part::Expression));
                match (quote, letter) {
                    (Some(open), _) if letter == open => quote = None,
                    (Some(_), _) => {}
                    (None, '\'' | '"') => quote = Some(letter),
                    (None, '{') => depth += 1,
                    (None, '}') => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            first = false;
        } else if !inside {
            inside = letter == '"';
            first = inside;
            found.push((letter, Part::Token));
        } else if letter == '"' {
            inside = false;
            found.push((letter, Part::Inside));
        } else {
            found.push((letter, if first { Part::First } else { Part::Inside }));
            first = false;
            if letter == '\\' {
                found.extend(letters.next().map(|escaped| (escaped, Part::Inside)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"type":${json(a['}'])},"a,b":["x\"y",1],"n":"${'${'}"}"#;

    #[test]
    fn white_space_is_added_between_tokens_only() {
        let spaced = rewritten(&json!({ "text": TEXT }), JsonForm::Spaced);
        let expected = " { \"type\": ${json(a['}'])},\n\t\"a,b\": [ \"x\\\"y\",\n\t1],\n\t\"n\": \"${'${'}\"}\n";
        assert_eq!(spaced, json!({ "text": expected }));
    }

    #[test]
    fn the_first_letter_of_each_text_is_escaped() {
        let escaped = rewritten(&json!({ "text": TEXT }), JsonForm::Escaped);
        let expected = r#"{"\u0074ype":${json(a['}'])},"\u0061,b":["\u0078\"y",1],"\u006e":"${'${'}"}"#;
        assert_eq!(escaped, json!({ "text": expected }));
    }

    #[test]
    fn fragments_have_the_whole_text() {
        let frames = rewritten(&json!({ "text": TEXT }), JsonForm::Fragments);
        let frames = frames["frames"].as_array().unwrap();
        let whole: String = frames.iter().map(|frame| frame["data"].as_str().unwrap()).collect();
        assert_eq!(whole, TEXT);
        let ends: Vec<bool> = frames.iter().map(|frame| frame["fin"].as_bool().unwrap()).collect();
        assert_eq!(ends, [false, false, true]);
    }
}
