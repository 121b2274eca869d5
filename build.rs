//! Embeds every pack and scenario in the binary. A build script, because a macro would not notice a new file.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let mut files = Vec::new();
    for folder in ["schemas", "scenarios"] {
        println!("cargo::rerun-if-changed={folder}");
        walk(Path::new(&root), Path::new(folder), &mut files)?;
    }
    files.sort();
    let mut code = String::from("/// Path and text of every file.\npub static FILES: &[(&str, &str)] = &[\n");
    for file in files {
        let _ = writeln!(code, "    ({file:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/\", {file:?}))),");
    }
    code.push_str("];\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("embedded_files.rs"), code)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            walk(root, &path, files)?;
        } else if let Some(text) = path.to_str() {
            // Forward slashes on every system, because paths are used as names.
            files.push(text.replace('\\', "/"));
        }
    }
    Ok(())
}
