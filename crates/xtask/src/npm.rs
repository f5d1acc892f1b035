//! The JavaScript package: its dependencies, build, checks and tarball.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::child::{output, quietly, say};
use crate::stamp::Stamp;
use crate::tree::Tree;

/// The oldest Node that the package supports (`engines` in its package.json).
const OLDEST_NODE: u32 = 20;

const QUICK: Duration = Duration::from_secs(20);
const INSTALL: Duration = Duration::from_secs(900);

/// A run of `npm` in the package's folder that asks nobody anything.
pub(crate) fn npm(tree: &Tree, arguments: &[&str]) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(tree.path("js"))
        .env("npm_config_update_notifier", "false")
        .env("npm_config_fund", "false")
        .env("npm_config_audit", "false")
        .args(arguments);
    npm
}

/// Installs the package's development dependencies, if they changed.
pub(crate) fn install(tree: &Tree) -> Result<()> {
    let node = node_version()?;
    say(&format!("node: {node}"));
    let stamp = Stamp::new().text(&node).path(tree, "js/package-lock.json")?;
    if stamp.is_fresh(tree, "npm-install", &[tree.path("js/node_modules")]) {
        return Ok(());
    }
    quietly(tree, "npm ci", INSTALL, npm(tree, &["ci", "--prefer-offline"]).arg("--no-progress"))?;
    stamp.done(tree, "npm-install")
}

/// Packs the built package as it would be published.
pub(crate) fn pack(tree: &Tree) -> Result<()> {
    quietly(tree, "npm pack", INSTALL, &mut npm(tree, &["pack", "--ignore-scripts"]))?;
    for entry in std::fs::read_dir(tree.path("js"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "tgz") {
            say(&format!("  {} {} bytes", tree.shown(&path), path.metadata()?.len()));
        }
    }
    Ok(())
}

/// Builds what the package ships from its sources and its WebAssembly module.
pub(crate) fn build(tree: &Tree) -> Result<()> {
    let stamp = ["js/package.json", "js/src", "js/scripts", "js/types"]
        .iter()
        .try_fold(Stamp::new(), |stamp, path| stamp.path(tree, path))?
        .path(tree, "js/wasm/edgeweir_js_bg.wasm")?
        .path(tree, "js/wasm/edgeweir_js_bg.js")?;
    if stamp.is_fresh(tree, "npm-build", &[tree.path("js/dist")]) {
        return Ok(());
    }
    quietly(tree, "npm run build", INSTALL, &mut npm(tree, &["run", "build"]))?;
    stamp.done(tree, "npm-build")
}

/// The scripts of the package that check it: `lint`, `types`, `test` and every `test:*`.
pub(crate) fn checks(tree: &Tree) -> Result<Vec<String>> {
    let manifest = crate::tree::read(&tree.path("js/package.json"))?;
    let manifest: serde_json::Value =
        serde_json::from_str(&manifest).context("js/package.json is not JSON")?;
    let scripts = manifest.get("scripts").and_then(serde_json::Value::as_object);
    let names = scripts.into_iter().flat_map(|scripts| scripts.keys());
    let is_check =
        |name: &str| matches!(name, "lint" | "test" | "types") || name.starts_with("test:");
    Ok(names.filter(|name| is_check(name)).cloned().collect())
}

fn node_version() -> Result<String> {
    let advice = format!("Node {OLDEST_NODE} or later is needed, with npm (nodejs.org)");
    let version = output(QUICK, Command::new("node").arg("--version")).context(advice.clone())?;
    output(QUICK, Command::new("npm").arg("--version")).context(advice.clone())?;
    let major = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse().ok());
    if major.is_none_or(|major: u32| major < OLDEST_NODE) {
        bail!("{advice}; found {version}");
    }
    Ok(version)
}
