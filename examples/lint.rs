use hubproof::pack::{Folder, Pack};
use std::collections::BTreeMap;
use std::sync::Arc;
fn main() {
    for name in std::env::args().skip(1) {
        let mut sources = hubproof::source::Sources::default();
        let mut folder = Folder { name: name.clone(), pack: BTreeMap::new(), scenarios: BTreeMap::new() };
        fn walk(
            dir: &str,
            prefix: &str,
            sources: &mut hubproof::source::Sources,
            into: &mut BTreeMap<String, hubproof::source::FileId>,
        ) {
            for e in std::fs::read_dir(dir).unwrap() {
                let e = e.unwrap();
                let p = e.path();
                let n = e.file_name().into_string().unwrap();
                if p.is_dir() {
                    walk(p.to_str().unwrap(), &format!("{prefix}{n}/"), sources, into);
                } else {
                    let t = std::fs::read_to_string(&p).unwrap();
                    let id = sources.add(p.to_str().unwrap(), t);
                    into.insert(format!("{prefix}{n}"), id);
                }
            }
        }
        walk(&format!("schemas/{name}"), "", &mut sources, &mut folder.pack);
        walk(&format!("scenarios/{name}"), "", &mut sources, &mut folder.scenarios);
        let (pack, d) = Pack::load(&folder, &sources);
        println!("{}", hubproof::diagnostic::render_all(&d, &sources, false));
        let pack = Arc::new(pack.unwrap());
        let s = hubproof::scenario::Scenarios::load(&folder, &sources, &pack);
        println!("{}", hubproof::diagnostic::render_all(&s.diagnostics, &sources, false));
        println!("{} programs {} diagnostics", s.programs.len(), s.diagnostics.len());
    }
}
