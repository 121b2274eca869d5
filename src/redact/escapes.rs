//! Decodes what a hub, a page or a log may have done to a text: the escapes of JSON, JavaScript, URLs, forms, HTML and
//! XML, also several times over.

/// A text without escapes.
pub struct DecodedText {
    pub bytes: Vec<u8>,
    /// For each byte, the range of the source that it stands for.
    sources: Vec<(usize, usize)>,
}

impl DecodedText {
    /// Returns the range in the source of a range that is not empty.
    pub fn source_range(&self, (start, end): (usize, usize)) -> (usize, usize) {
        (self.sources[start].0, self.sources[end - 1].1)
    }
}

/// Most times that a text is decoded.
const MAX_PASSES: usize = 6;

/// Returns the text with all escapes decoded once, twice and so on until no escape is left; nothing if it has none.
pub fn decodings(text: &[u8]) -> Vec<DecodedText> {
    let mut decoded: Vec<DecodedText> = Vec::new();
    if text.iter().any(|byte| matches!(byte, b'\\' | b'%' | b'&' | b'+')) {
        while decoded.len() < MAX_PASSES {
            let Some(next) = decode_once(decoded.last(), text) else { break };
            decoded.push(next);
        }
    }
    decoded
}

/// Returns the text without escapes; `None` if it has none.
pub fn decode(text: &[u8]) -> Option<DecodedText> {
    decodings(text).pop()
}

/// Decodes each escape once; `None` if there is none.
fn decode_once(before: Option<&DecodedText>, text: &[u8]) -> Option<DecodedText> {
    let bytes = before.map_or(text, |before| &before.bytes);
    let source = |start: usize, end: usize| match before {
        Some(before) => before.source_range((start, end)),
        None => (start, end),
    };
    let mut decoded = DecodedText { bytes: Vec::with_capacity(bytes.len()), sources: Vec::with_capacity(bytes.len()) };
    let (mut at, mut changed) = (0, false);
    while at < bytes.len() {
        let (length, letter) = escape_at(&bytes[at..]).unwrap_or((1, Decoded::Byte(bytes[at])));
        changed |= length > 1 || bytes[at] == b'+';
        let mut buffer = [0; 4];
        let written = match letter {
            Decoded::Byte(byte) => {
                buffer[0] = byte;
                &buffer[..1]
            }
            Decoded::Letter(letter) => letter.encode_utf8(&mut buffer).as_bytes(),
        };
        decoded.bytes.extend(written);
        decoded.sources.resize(decoded.bytes.len(), source(at, at + length));
        at += length;
    }
    changed.then_some(decoded)
}

enum Decoded {
    Byte(u8),
    Letter(char),
}

/// Returns the length of the escape with which a text begins, and what it stands for.
fn escape_at(text: &[u8]) -> Option<(usize, Decoded)> {
    match text[0] {
        b'+' => Some((1, Decoded::Byte(b' '))),
        b'%' => Some((3, Decoded::Byte(u8::try_from(hex(text.get(1..3)?)?).ok()?))),
        b'\\' => backslash_escape(text),
        b'&' => {
            let end = text.iter().take(12).position(|byte| *byte == b';')?;
            let name = std::str::from_utf8(&text[1..end]).ok()?;
            let letter = match name.strip_prefix('#') {
                Some(number) => {
                    let code = match number.strip_prefix(['x', 'X']) {
                        Some(digits) => u32::from_str_radix(digits, 16),
                        None => number.parse(),
                    };
                    char::from_u32(code.ok()?)?
                }
                None => ENTITIES.iter().find(|(known, _)| *known == name)?.1,
            };
            Some((end + 1, Decoded::Letter(letter)))
        }
        _ => None,
    }
}

/// The entities of XML, and the HTML entities of characters that secrets often contain.
const ENTITIES: [(&str, char); 14] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", ' '),
    ("sol", '/'),
    ("plus", '+'),
    ("equals", '='),
    ("colon", ':'),
    ("num", '#'),
    ("percnt", '%'),
    ("commat", '@'),
    ("excl", '!'),
];

fn backslash_escape(text: &[u8]) -> Option<(usize, Decoded)> {
    let unit = |at: usize| hex(text.get(at..at + 4)?);
    match *text.get(1)? {
        b'u' if text.get(2) == Some(&b'{') => {
            let end = text.iter().take(10).position(|byte| *byte == b'}')?;
            Some((end + 1, Decoded::Letter(char::from_u32(hex(&text[3..end])?)?)))
        }
        b'u' => {
            let first = unit(2)?;
            if let Some(letter) = char::from_u32(first) {
                return Some((6, Decoded::Letter(letter)));
            }
            let second = unit(8).filter(|_| text[6..].starts_with(b"\\u"))?;
            let code = 0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
            Some((12, Decoded::Letter(char::from_u32(code)?)))
        }
        b'x' => Some((4, Decoded::Byte(u8::try_from(hex(text.get(2..4)?)?).ok()?))),
        b'n' => Some((2, Decoded::Byte(b'\n'))),
        b'r' => Some((2, Decoded::Byte(b'\r'))),
        b't' => Some((2, Decoded::Byte(b'\t'))),
        b'b' => Some((2, Decoded::Byte(8))),
        b'f' => Some((2, Decoded::Byte(12))),
        byte @ (b'\\' | b'"' | b'\'' | b'/') => Some((2, Decoded::Byte(byte))),
        _ => None,
    }
}

/// Returns the value of hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u32> {
    let all = digits.iter().all(u8::is_ascii_hexdigit);
    std::str::from_utf8(digits).ok().filter(|_| all).and_then(|digits| u32::from_str_radix(digits, 16).ok())
}
