//! Embeds every pack and scenario in the binary, compressed. A build script, because a macro would not notice a new file.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::DeflateEncoder;

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let mut files = Vec::new();
    for folder in ["schemas", "scenarios"] {
        println!("cargo::rerun-if-changed={folder}");
        walk(Path::new(&root), Path::new(folder), &mut files)?;
    }
    // `syntax::grammar` embeds the schemas of hubproof's own files that are read at run time.
    files.retain(|file| !file.starts_with("schemas/hubproof/"));
    files.sort();
    let mut all = DeflateEncoder::new(Vec::new(), Compression::best());
    let mut code = String::from(
        "/// Path and size in bytes of every file, in the order of their texts.\nstatic FILES: &[(&str, usize)] = &[\n",
    );
    for file in files {
        let text = fs::read_to_string(Path::new(&root).join(&file))?;
        let _ = writeln!(code, "    ({file:?}, {}),", text.len());
        all.write_all(text.as_bytes())?;
    }
    code.push_str("];\n/// All texts, compressed by deflate.\nstatic TEXTS: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/embedded_files.deflate\"));\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("embedded_files.deflate"), all.finish()?)?;
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
