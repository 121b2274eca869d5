//! Reads the user's files: only regular files, up to a limit. A device or a pipe would never end.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Reads a file of at most `most` bytes.
///
/// # Errors
///
/// The file cannot be read, is not a regular file, or is larger.
pub fn read_bytes(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    // A file in /proc has no length, so the limit holds while reading.
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it is larger than {} MiB", most >> 20)));
    }
    Ok(bytes)
}

/// Reads a text file of at most `most` bytes.
///
/// # Errors
///
/// Fails as [`read_bytes`] does, and if the file is not UTF-8.
pub fn read_text(path: &Path, most: usize) -> io::Result<String> {
    let text = String::from_utf8(read_bytes(path, most)?);
    text.map_err(|error| io::Error::other(format!("it is not UTF-8 (byte {})", error.utf8_error().valid_up_to())))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/dev/zero", "it is not a regular file")]
    #[case("/", "it is not a regular file")]
    #[case("/proc/self/maps", "it is larger than 0 MiB")]
    #[case("/no/such", "No such file or directory (os error 2)")]
    fn devices_folders_and_endless_files_are_not_read(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(read_text(Path::new(path), 100).unwrap_err().to_string(), expected);
    }
}
