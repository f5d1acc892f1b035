//! Knows whether a step's inputs changed, by content and never by time.

use std::fmt::Write as _;
use std::hash::Hasher as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::tree::{self, Tree};

/// The content of everything that a step reads, as one number.
pub(crate) struct Stamp {
    hasher: SipHasher13,
}

impl Stamp {
    pub(crate) fn new() -> Self {
        Self { hasher: SipHasher13::new() }
    }

    /// Adds a text: a version, a flag, a command.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.part(text.as_bytes());
        self
    }

    /// Adds a file, or every file below a folder, with its path. A path that does not
    /// exist counts too, so that its coming into being is a change.
    pub(crate) fn path(mut self, tree: &Tree, relative: &str) -> Result<Self> {
        for file in files(&tree.path(relative))? {
            self.part(tree.shown(&file).to_string().as_bytes());
            self.part(&bytes(&file)?);
        }
        self.part(relative.as_bytes());
        Ok(self)
    }

    // The length first: "ab" + "c" and "a" + "bc" are different inputs.
    fn part(&mut self, bytes: &[u8]) {
        self.hasher.write_usize(bytes.len());
        self.hasher.write(bytes);
    }

    /// Whether `step` was last done with these inputs and left all of `outputs`.
    pub(crate) fn is_fresh(&self, tree: &Tree, step: &str, outputs: &[PathBuf]) -> bool {
        let noted = std::fs::read_to_string(note(tree, step)).unwrap_or_default();
        noted == self.number() && outputs.iter().all(|output| output.exists())
    }

    /// Notes that `step` was done with these inputs.
    pub(crate) fn done(&self, tree: &Tree, step: &str) -> Result<()> {
        tree::write(&note(tree, step), self.number())
    }

    fn number(&self) -> String {
        format!("{:032x}", self.hasher.finish128().as_u128())
    }
}

fn note(tree: &Tree, step: &str) -> PathBuf {
    tree.notes(&format!("stamp/{step}"))
}

/// Lists what went into a module, for a reader that wants to know whether the module
/// is older than its sources: one line per file, its FNV-1a hash and its path.
///
/// FNV because the reader can then be ten lines in any language; an accident is what
/// it must catch, not a forgery.
pub(crate) fn manifest(tree: &Tree, sources: &[&str]) -> Result<String> {
    let mut text = String::new();
    for source in sources {
        for file in files(&tree.path(source))? {
            let hash = fnv1a(&bytes(&file)?);
            writeln!(text, "{hash:016x}  {}", tree.shown(&file))?;
        }
    }
    Ok(text)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Every file at or below `path`, sorted, without what builds leave behind.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry?.path();
            let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if entry.is_file() {
                found.push(entry);
            } else if !matches!(name, "target" | "node_modules" | "wasm" | "dist") {
                folders.push(entry);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn bytes(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_apart_texts_that_join_to_the_same() {
        let one = Stamp::new().text("ab").text("c").number();
        let other = Stamp::new().text("a").text("bc").number();
        assert_ne!(one, other);
    }

    #[test]
    fn a_stamp_depends_on_the_content_of_files() {
        let tree = Tree::find().unwrap();
        let number = |path| Stamp::new().path(&tree, path).unwrap().number();
        assert_eq!(number("Cargo.toml"), number("Cargo.toml"));
        assert_ne!(number("Cargo.toml"), number("Cargo.lock"));
        assert_ne!(number("no/such/file"), number("no/such/other"));
    }

    #[test]
    fn fnv_gives_the_published_values() {
        // From the reference vectors of draft-eastlake-fnv.
        for (text, hash) in [("", 0xcbf2_9ce4_8422_2325), ("foobar", 0x8594_4171_f739_67e8)] {
            assert_eq!(fnv1a(text.as_bytes()), hash);
        }
    }
}
