//! One message per line, which is how many services speak JSON over plain TCP.

use super::Carrier;

/// The state of a stream of lines.
pub struct Lines {
    /// The unfinished line.
    line: Vec<u8>,
    most: usize,
}

impl Lines {
    /// Creates a new stream that refuses lines longer than `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { line: Vec::new(), most }
    }
}

impl Carrier for Lines {
    fn opening(&self) -> Vec<u8> {
        Vec::new()
    }

    fn receive(&mut self, bytes: &[u8], messages: &mut Vec<Vec<u8>>, _: &mut Vec<u8>) -> Result<(), String> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > self.most {
                return Err(format!("a line of more than {} bytes", self.most));
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let mut line = std::mem::take(&mut self.line);
                line.truncate(line.trim_ascii_end().len());
                messages.extend(Some(line).filter(|line| !line.is_empty()));
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        true
    }

    /// JSON has line ends only between its tokens, where a space says the same.
    fn encode(&self, message: &[u8], out: &mut Vec<u8>) {
        out.extend(message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        out.push(b'\n');
    }
}
