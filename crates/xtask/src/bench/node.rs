//! The npm package against others that do the like, in Node.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::child::{followed, say};
use crate::tree::Tree;

const LIMIT: Duration = Duration::from_secs(900);

/// Runs every script in `js/bench`; each prints a table of its own.
pub(super) fn run(tree: &Tree) -> Result<()> {
    let mut scripts: Vec<_> = std::fs::read_dir(tree.path("js/bench"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "js" || end == "mjs"))
        .collect();
    scripts.sort();
    for script in scripts {
        say(&format!("\n== {}", tree.shown(&script)));
        let mut node = Command::new("node");
        node.current_dir(tree.path("js")).arg("--expose-gc").arg(&script);
        let status = followed(LIMIT, &mut node, |_| ())?;
        ensure!(status.success(), "{} ended with {status}", tree.shown(&script));
    }
    Ok(())
}
