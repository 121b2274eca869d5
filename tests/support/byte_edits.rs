//! Generates inputs for parsers: real files, cut, duplicated, moved and spliced with tokens of the parsers' languages,
//! which reach deeper than random bytes.

use proptest::collection::vec;
use proptest::prelude::*;

/// Tokens that are special to some parser.
pub const PIECES: &[&str] = &[
    "\0",
    "\u{feff}",
    "\r",
    "\n",
    "\t",
    " ",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "{}",
    "[]",
    ":",
    ": ",
    ",",
    "- ",
    "-",
    "\"",
    "'",
    "\\",
    "\\u",
    "\\ud800",
    "|",
    ">",
    ">-",
    "#",
    " # ",
    "&a ",
    "*a",
    "<<: *a",
    "!t ",
    "%YAML 1.2\n",
    "---\n",
    "...\n",
    "?",
    "? ",
    "null",
    "true",
    "yes",
    "~",
    "0",
    "-1",
    "007",
    "0x7f",
    "1e400",
    "-1e-400",
    "99999999999999999999",
    ".inf",
    ".nan",
    "${",
    "${}",
    "${x",
    "}",
    "${self}",
    "${unique('a')}",
    "${[1,2][9]}",
    "${1/0}",
    "${'a' * 10}",
    "$ref: '#'",
    "\"$ref\": \"#\"",
    "$ref: '#/components/messages/a'",
    "$ref: '../x.yaml'",
    "allOf: [{}]",
    "not: {}",
    "x-should: []",
    "minLength: 1e30",
    "pattern: '(a{1000}){1000}'",
    "pattern: '('",
    "pattern: '(a+)+$'",
    "enum: []",
    "const: {}",
    "required: [a, a]",
    "type: object",
    "properties: {}",
    "items: [{}, false]",
    "/a~2",
    "/",
    "~1",
    "~0",
    "..",
    "../..",
    "é",
    "漢字",
    "😀",
    "e\u{301}",
    "\u{202e}",
    "\u{2028}",
    "\u{ffff}",
    "=",
    "[[",
    "]]",
    "\"\"\"",
    "'''",
    "1979-05-27",
    "inf",
    "nan",
    "joins",
    "sends",
    "expects",
    "rules:",
    "has:",
    "where:",
    "for: 300ms",
    "within: 1h",
    "count: { min: 0 }",
    "each: x",
    "retry: 5s",
    "plays: a",
    "HTTP/1.1 101 X\r\n",
    "GET / HTTP/1.1\r\n",
    "Upgrade: websocket\r\n",
    "\r\n\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
];

/// Bytes that are special to the WebSocket codec.
const BYTES: &[&[u8]] = &[
    &[0x81, 0x00],
    &[0x81, 0x7e],
    &[0x81, 0x7f],
    &[0x81, 0xff],
    &[0x88, 0x01],
    &[0x88, 0x02, 0x03, 0xe8],
    &[0x89, 0x7d],
    &[0x01, 0x01, b'a'],
    &[0x80, 0x00],
    &[0xc1, 0x00],
    &[0x83, 0x00],
    &[0xff; 8],
    &[0x80; 8],
    &[0xed, 0xa0, 0x80],
    &[0xc0, 0xaf],
    &[0xf4, 0x90, 0x80, 0x80],
];

/// A position as a share of the length, so that it applies to any file.
type RelativePosition = u16;

#[derive(Clone, Debug)]
enum ByteEdit {
    Delete(RelativePosition, u8),
    Double(RelativePosition, u8),
    /// Moves bytes.
    Move(RelativePosition, u8, RelativePosition),
    Insert(RelativePosition, u8),
    InsertBytes(RelativePosition, u8),
    Overwrite(RelativePosition, u8),
    Flip(RelativePosition, u8),
    /// Inserts bytes of another file.
    Splice(RelativePosition, u8, RelativePosition, u8),
    DeleteLine(RelativePosition),
    DoubleLine(RelativePosition),
    MoveLine(RelativePosition, RelativePosition),
    Indent(RelativePosition, i8),
    /// Repeats a line many times.
    RepeatLine(RelativePosition, u8),
    Cut(RelativePosition),
    /// Nests a bracketed part within itself.
    Nest(RelativePosition, u8),
}

fn byte_edit() -> impl Strategy<Value = ByteEdit> {
    let at = any::<RelativePosition>;
    prop_oneof![
        1 => (at(), any::<u8>()).prop_map(|(at, length)| ByteEdit::Delete(at, length)),
        1 => (at(), any::<u8>()).prop_map(|(at, length)| ByteEdit::Double(at, length)),
        1 => (at(), any::<u8>(), at()).prop_map(|(at, length, to)| ByteEdit::Move(at, length, to)),
        4 => (at(), any::<u8>()).prop_map(|(at, piece)| ByteEdit::Insert(at, piece)),
        1 => (at(), any::<u8>()).prop_map(|(at, piece)| ByteEdit::InsertBytes(at, piece)),
        2 => (at(), any::<u8>()).prop_map(|(at, piece)| ByteEdit::Overwrite(at, piece)),
        1 => (at(), any::<u8>()).prop_map(|(at, bit)| ByteEdit::Flip(at, bit)),
        2 => (at(), any::<u8>(), at(), any::<u8>()).prop_map(|(at, file, from, length)| ByteEdit::Splice(at, file, from, length)),
        2 => at().prop_map(ByteEdit::DeleteLine),
        1 => at().prop_map(ByteEdit::DoubleLine),
        1 => (at(), at()).prop_map(|(from, to)| ByteEdit::MoveLine(from, to)),
        1 => (at(), -4..5i8).prop_map(|(at, by)| ByteEdit::Indent(at, by)),
        1 => (at(), any::<u8>()).prop_map(|(at, times)| ByteEdit::RepeatLine(at, times)),
        1 => at().prop_map(ByteEdit::Cut),
        1 => (at(), any::<u8>()).prop_map(|(at, times)| ByteEdit::Nest(at, times)),
    ]
}

/// Generates one of the `files` with a few edits, sometimes random bytes, and the index of the file.
pub fn mangled_file(files: Vec<Vec<u8>>) -> impl Strategy<Value = (usize, Vec<u8>)> {
    let count = files.len();
    prop_oneof![
        20 => (0..count, vec(byte_edit(), 1..6)).prop_map(move |(index, edits)| {
            let mut bytes = files[index].clone();
            edits.iter().for_each(|edit| apply_edit(edit, &mut bytes, &files));
            (index, bytes)
        }),
        1 => (0..count, vec(any::<u8>(), 0..400)),
        2 => (0..count, vec(0..PIECES.len(), 0..60)).prop_map(|(index, pieces)| {
            (index, pieces.into_iter().flat_map(|piece| PIECES[piece].bytes()).collect())
        }),
    ]
}

/// Most bytes after edits.
const LONGEST: usize = 1 << 20;

fn byte_position(share: RelativePosition, length: usize) -> usize {
    length * usize::from(share) / (usize::from(RelativePosition::MAX) + 1)
}

fn byte_span(at: RelativePosition, length: u8, bytes: &[u8]) -> std::ops::Range<usize> {
    let start = byte_position(at, bytes.len());
    start..(start + usize::from(length)).min(bytes.len())
}

fn apply_edit(edit: &ByteEdit, bytes: &mut Vec<u8>, files: &[Vec<u8>]) {
    let insert = |bytes: &mut Vec<u8>, at: usize, piece: &[u8]| {
        if bytes.len() + piece.len() <= LONGEST {
            bytes.splice(at..at, piece.iter().copied());
        }
    };
    match *edit {
        ByteEdit::Delete(at, length) => drop(bytes.drain(byte_span(at, length, bytes))),
        ByteEdit::Double(at, length) => {
            let range = byte_span(at, length, bytes);
            let piece = bytes[range.clone()].to_vec();
            insert(bytes, range.end, &piece);
        }
        ByteEdit::Move(at, length, to) => {
            let piece: Vec<u8> = bytes.drain(byte_span(at, length, bytes)).collect();
            let to = byte_position(to, bytes.len());
            insert(bytes, to, &piece);
        }
        ByteEdit::Insert(at, piece) => {
            insert(bytes, byte_position(at, bytes.len()), PIECES[usize::from(piece) % PIECES.len()].as_bytes())
        }
        ByteEdit::InsertBytes(at, piece) => {
            insert(bytes, byte_position(at, bytes.len()), BYTES[usize::from(piece) % BYTES.len()])
        }
        ByteEdit::Overwrite(at, piece) => {
            let piece = PIECES[usize::from(piece) % PIECES.len()].as_bytes();
            let start = byte_position(at, bytes.len());
            let end = (start + piece.len()).min(bytes.len());
            bytes.splice(start..end, piece.iter().copied());
        }
        ByteEdit::Flip(at, bit) => {
            let at = byte_position(at, bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        ByteEdit::Splice(at, file, from, length) => {
            let other = &files[usize::from(file) % files.len()];
            insert(bytes, byte_position(at, bytes.len()), &other[byte_span(from, length, other)]);
        }
        ByteEdit::Cut(at) => bytes.truncate(byte_position(at, bytes.len())),
        ByteEdit::Nest(at, times) => {
            let at = byte_position(at, bytes.len());
            let piece = if times % 2 == 0 { ("[", "]") } else { ("{ a: ", " }") };
            let piece = format!("{}{}", piece.0.repeat(usize::from(times)), piece.1.repeat(usize::from(times)));
            insert(bytes, at, piece.as_bytes());
        }
        ByteEdit::DeleteLine(at) => drop(bytes.drain(line_range(at, bytes))),
        ByteEdit::DoubleLine(at) => {
            let range = line_range(at, bytes);
            let piece = bytes[range.clone()].to_vec();
            insert(bytes, range.end, &piece);
        }
        ByteEdit::RepeatLine(at, times) => {
            let range = line_range(at, bytes);
            let piece = bytes[range.clone()].repeat(usize::from(times));
            insert(bytes, range.end, &piece);
        }
        ByteEdit::MoveLine(from, to) => {
            let piece: Vec<u8> = bytes.drain(line_range(from, bytes)).collect();
            let to = line_range(to, bytes).start;
            insert(bytes, to, &piece);
        }
        ByteEdit::Indent(at, by) => {
            let start = line_range(at, bytes).start;
            let spaces = usize::from(by.unsigned_abs());
            match by {
                0.. => insert(bytes, start, &b"    "[..spaces]),
                _ => {
                    let there = bytes[start..].iter().take(spaces).take_while(|byte| **byte == b' ').count();
                    bytes.drain(start..start + there);
                }
            }
        }
    }
}

/// Returns the range of the line at a position, with its line end.
fn line_range(at: RelativePosition, bytes: &[u8]) -> std::ops::Range<usize> {
    let at = byte_position(at, bytes.len());
    let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end + 1);
    start..end
}
