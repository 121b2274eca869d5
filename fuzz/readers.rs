//! Gives the reader that HUBPROOF_READER names the inputs of libFuzzer. With HUBPROOF_SEEDS it only writes the samples of all
//! readers to that folder, and the tokens of their languages. `reports/parsers` calls both.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;
use std::{env, fs, process};

use libfuzzer_sys::fuzz_target;

use self::support::byte_edits::PIECES;
use self::support::readers::{READERS, Reader};

#[path = "../tests/support"]
#[allow(dead_code)]
mod support {
    pub mod byte_edits;
    pub mod disk;
    pub mod readers;
}

static READER: LazyLock<Reader> = LazyLock::new(|| {
    let name = env::var("HUBPROOF_READER").unwrap();
    READERS.iter().find(|reader| reader.0 == name).unwrap().2()
});

fuzz_target!(init: prepare(), |input: &[u8]| {
    // The first byte selects the sample that the others are a change of.
    if let Some((index, bytes)) = input.split_first() {
        (READER.read)(usize::from(*index) % READER.samples.len(), bytes);
    }
});

fn prepare() {
    // libFuzzer would end at panics that a library catches. A panic of ours still ends it.
    drop(std::panic::take_hook());
    if let Ok(folder) = env::var("HUBPROOF_SEEDS") {
        write_seeds(Path::new(&folder)).unwrap();
        process::exit(0);
    }
    LazyLock::force(&READER);
}

fn write_seeds(folder: &Path) -> std::io::Result<()> {
    for (name, _, reader) in READERS {
        fs::create_dir_all(folder.join(name))?;
        for (index, sample) in (0_u8..).zip(reader().samples) {
            fs::write(folder.join(name).join(index.to_string()), [&[index], &sample[..]].concat())?;
        }
    }
    let escaped = |piece: &&str| piece.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let words = PIECES.iter().filter(|piece| piece.len() < 64).map(|piece| format!("\"{}\"\n", escaped(piece)));
    fs::write(folder.join("dictionary"), words.collect::<String>())
}
