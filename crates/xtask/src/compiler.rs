//! Finds a compiler for wasm32, or fetches one.
//!
//! Two kinds serve. One has the target's standard library ready (rustup's component,
//! or a distribution's package of it). The other has the library's sources, and builds
//! it with ours (`-Zbuild-std`, a flag that a stable compiler takes only with
//! `RUSTC_BOOTSTRAP=1`). They are tried in the order of what they cost.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::child::{output, quietly, say};
use crate::tree::{self, Tree};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// The target without a standard library: what compiles for it needs `core` and
/// `alloc` only.
const TARGET_WITHOUT_STD: &str = "wasm32v1-none";

/// The oldest compiler that takes this workspace (`rust-version` in Cargo.toml).
const OLDEST: (u32, u32) = (1, 88);

/// Debian's compiler with the library's sources, and the linker for wasm.
const PACKAGES: [&str; 5] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "lld-22"];

const QUICK: Duration = Duration::from_secs(20);
const DOWNLOAD: Duration = Duration::from_secs(300);
const BUILD: Duration = Duration::from_secs(1800);

/// Passes its arguments on to the linker, without `--export` of the SDK's symbols.
const LINKER: &str = r#"#!/bin/sh
export=
for argument; do
    shift
    if [ -z "$export" ] && [ "$argument" = --export ]; then
        export=yes
        continue
    fi
    case "$export:$argument" in
        yes:proxy_* | yes:malloc) ;;
        yes:*) set -- "$@" --export "$argument" ;;
        *) set -- "$@" "$argument" ;;
    esac
    export=
done
exec "LINKER" "$@"
"#;

/// A compiler that can build for [`TARGET`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    cargo: PathBuf,
    rustc: PathBuf,
    version: String,
    /// Whether it has the target's standard library ready, else it builds that too.
    has_std: bool,
}

impl Compiler {
    /// One line for people, and for the stamps of what it builds.
    pub(crate) fn describe(&self) -> String {
        let how = if self.has_std {
            "with the target's library ready"
        } else {
            "with -Zbuild-std (builds the target's library from its sources)"
        };
        format!("{} ({}) {how}", self.version, self.rustc.display())
    }

    /// `cargo build` of one package for wasm32 into a target folder of its own.
    fn build_command(&self, tree: &Tree, package: &str, target: &str, std: &str) -> Command {
        let mut cargo = clean(&self.cargo);
        cargo
            .current_dir(tree.root())
            .env("RUSTC", &self.rustc)
            .args(["build", "--release", "--lib", "--package", package, "--target", target])
            .arg("--target-dir")
            .arg(tree.path("target/wasm-build"));
        if !std.is_empty() {
            cargo.env("RUSTC_BOOTSTRAP", "1").arg(format!("-Zbuild-std={std}"));
        }
        cargo
    }

    /// Builds one of our `cdylib` crates; gives the path of the raw module.
    ///
    /// One package per call: built together, cargo would give both edges the union of
    /// the features that either asks of a shared dependency. `level` is what the
    /// compiler optimises for: `3` is speed, `z` is size.
    pub(crate) fn build(&self, tree: &Tree, package: &str, level: &str) -> Result<PathBuf> {
        let std = if self.has_std { "" } else { "std,panic_abort" };
        let mut build = self.build_command(tree, package, TARGET, std);
        build.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", level);
        build.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", self.linker(tree)?);
        quietly(tree, &format!("compile {package} for wasm32"), BUILD, &mut build)?;
        let file = format!("{}.wasm", package.replace('-', "_"));
        Ok(tree.path("target/wasm-build").join(TARGET).join("release").join(file))
    }

    /// Builds the core for wasm32 where there is no standard library to lean on.
    pub(crate) fn build_core_without_std(&self, tree: &Tree) -> Result<()> {
        let (target, std) = if has_source(&self.rustc) {
            (TARGET, "core,alloc")
        } else if has_target(&self.rustc, TARGET_WITHOUT_STD) || rustup_add(TARGET_WITHOUT_STD) {
            (TARGET_WITHOUT_STD, "")
        } else {
            bail!(
                "no way to build without the standard library: neither the component \
                 rust-src nor the target {TARGET_WITHOUT_STD} can be had; \
                 `rustup target add {TARGET_WITHOUT_STD}` brings the latter"
            );
        };
        let mut build = self.build_command(tree, "edgeweir", target, std);
        quietly(tree, "compile edgeweir without std", BUILD, &mut build)
    }

    /// A linker that exports nothing of the crate proxy-wasm.
    ///
    /// The compiler has every public symbol of every crate exported, and the linker
    /// keeps what is exported. The SDK's entry points would keep all of the SDK, and
    /// make the module import host calls that it never uses.
    fn linker(&self, tree: &Tree) -> Result<PathBuf> {
        let real = self.real_linker().with_context(|| {
            format!("{} comes without rust-lld (Debian: apt-get install lld-22)", self.version)
        })?;
        let script = LINKER.replace("LINKER", &real.display().to_string());
        let path = tree.notes("link-without-sdk.sh");
        tree::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    fn real_linker(&self) -> Option<PathBuf> {
        let libraries = sysroot(&self.rustc)?.join("lib/rustlib");
        std::fs::read_dir(libraries)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin/rust-lld")))
            .chain([self.rustc.with_file_name("rust-lld")])
            .find(|candidate| candidate.is_file())
    }

    fn to_note(&self) -> Value {
        json!({
            "cargo": self.cargo, "rustc": self.rustc,
            "version": self.version, "has_std": self.has_std,
        })
    }

    /// The noted compiler, if it is still there and still the same.
    fn from_note(note: &Value) -> Option<Self> {
        let path = |name: &str| Some(PathBuf::from(note.get(name)?.as_str()?));
        let noted = Self {
            cargo: path("cargo")?,
            rustc: path("rustc")?,
            version: note.get("version")?.as_str()?.to_owned(),
            has_std: note.get("has_std")?.as_bool()?,
        };
        (Self::at(&noted.rustc)? == noted).then_some(noted)
    }

    /// What the compiler `rustc` can do for wasm32 as it is, if anything.
    fn at(rustc: &Path) -> Option<Self> {
        let version = output(QUICK, clean(rustc).arg("--version")).ok()?;
        let cargo = rustc.with_file_name("cargo");
        let cargo = if cargo.exists() { cargo } else { PathBuf::from("cargo") };
        let has_std = has_target(rustc, TARGET);
        if parse_version(&version)? < OLDEST || !(has_std || has_source(rustc)) {
            return None;
        }
        Some(Self { cargo, rustc: rustc.to_path_buf(), version, has_std })
    }
}

/// Finds a compiler or fetches one, says which, and remembers it.
pub(crate) fn choose(tree: &Tree) -> Result<Compiler> {
    let note = tree.notes("compiler.json");
    let asked = std::env::var_os("EDGEWEIR_RUSTC").map(PathBuf::from);
    if let Some(rustc) = asked {
        let found = Compiler::at(&rustc).with_context(|| {
            format!("EDGEWEIR_RUSTC={}: not a compiler for {TARGET}", rustc.display())
        })?;
        say(&format!("wasm32 compiler: {} (EDGEWEIR_RUSTC)", found.describe()));
        return Ok(found);
    }
    let noted = std::fs::read_to_string(&note).ok().and_then(|text| {
        let note = serde_json::from_str(&text).ok()?;
        Compiler::from_note(&note)
    });
    let found = match noted {
        Some(found) => found,
        None => search(tree)?,
    };
    tree::write(&note, found.to_note().to_string())?;
    say(&format!("wasm32 compiler: {}", found.describe()));
    Ok(found)
}

fn search(tree: &Tree) -> Result<Compiler> {
    let own = sysroot(Path::new("rustc")).map(|root| root.join("bin/rustc"));
    let distribution = Some(PathBuf::from("/usr/bin/rustc"));
    let has_std = |rustc: &Option<PathBuf>| {
        rustc.as_deref().and_then(Compiler::at).filter(|found| found.has_std)
    };
    if let Some(found) = has_std(&own).or_else(|| has_std(&distribution)) {
        return Ok(found);
    }
    if rustup_add(TARGET)
        && let Some(found) = has_std(&own)
    {
        return Ok(found);
    }
    let any = |rustc: &Option<PathBuf>| rustc.as_deref().and_then(Compiler::at);
    if let Some(found) = any(&own).or_else(|| any(&distribution)) {
        return Ok(found);
    }
    apt_install(tree)?;
    any(&distribution).context("the distribution's compiler was installed but does not serve")
}

/// Asks rustup for a target of the compiler in use. "No" is an answer, not an error:
/// there may be no rustup, or no network.
fn rustup_add(target: &str) -> bool {
    say(&format!("asking rustup for {target} (at most {} s)", DOWNLOAD.as_secs()));
    // Not `clean`: RUSTUP_TOOLCHAIN names the compiler that this tool itself runs under.
    let added = output(DOWNLOAD, Command::new("rustup").args(["target", "add", target]));
    if let Err(error) = &added {
        say(&format!("  no: {}", first_line(&format!("{error:#}"))));
    }
    added.is_ok()
}

fn apt_install(tree: &Tree) -> Result<()> {
    let packages = PACKAGES.join(" ");
    let advice = format!(
        "no compiler for {TARGET}. Any of these brings one:\n  \
         rustup target add {TARGET}\n  \
         rustup component add rust-src\n  \
         apt-get install {packages}    (Debian 12 and later, as root)"
    );
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        bail!("{advice}");
    }
    let apt = |what: &str, arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        quietly(tree, what, BUILD, &mut apt)
    };
    say(&format!("installing {packages}"));
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(PACKAGES);
    apt("apt-get update", &["update"])
        .and_then(|()| apt("apt-get install of a wasm32 compiler", &install))
        .context(advice)
}

/// A command that is free of what rustup and cargo set for their own children: this
/// tool is such a child, and the compiler to run may be another.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let is_ours = name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BUILD_");
        let is_named = matches!(
            name.as_str(),
            "RUSTUP_TOOLCHAIN"
                | "CARGO"
                | "CARGO_MANIFEST_DIR"
                | "CARGO_MANIFEST_PATH"
                | "CARGO_ENCODED_RUSTFLAGS"
                | "CARGO_TARGET_DIR"
                | "RUSTC"
                | "RUSTC_WRAPPER"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "RUSTDOC"
                | "RUSTFLAGS"
                | "LD_LIBRARY_PATH"
        );
        if is_ours || is_named {
            command.env_remove(name);
        }
    }
    command
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    // A plain `rustc` is rustup's or whatever the path has first; its own variables
    // must stay, for they say which toolchain was asked for.
    let mut ask = Command::new(rustc);
    if rustc.is_absolute() {
        ask = clean(rustc);
    }
    output(QUICK, ask.args(["--print", "sysroot"])).ok().map(PathBuf::from)
}

fn has_target(rustc: &Path, target: &str) -> bool {
    sysroot(rustc).is_some_and(|root| root.join("lib/rustlib").join(target).join("lib").is_dir())
}

fn has_source(rustc: &Path) -> bool {
    sysroot(rustc)
        .is_some_and(|root| root.join("lib/rustlib/src/rust/library/Cargo.lock").is_file())
}

/// Major and minor of `rustc 1.95.0 (...)`.
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut parts = line.split_whitespace().nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| line.contains("error")).or(text.lines().next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        let cases = [
            ("rustc 1.95.0 (59807616e 2026-04-14)", Some((1, 95))),
            ("rustc 1.100.0-nightly", Some((1, 100))),
            ("rustc 1.63.0", Some((1, 63))),
            ("clang 15", None),
            ("", None),
        ];
        for (line, version) in cases {
            assert_eq!(parse_version(line), version, "{line}");
        }
        assert!(parse_version("rustc 1.63.0") < Some(OLDEST));
        assert!(parse_version("rustc 1.100.0") > Some(OLDEST));
    }

    #[test]
    fn the_linker_is_asked_to_export_everything_but_the_sdk() {
        let script = LINKER.replace("LINKER", "echo");
        let mut linker = Command::new("sh");
        linker.args(["-c", &script, "linker", "-flavor", "wasm", "--export", "edgeweir_on_log"]);
        linker.args(["--export", "proxy_on_log", "--export", "malloc", "--export=__heap_base"]);
        linker.args(["a file.o", "1", "-o", "out.wasm"]);
        assert_eq!(
            output(QUICK, &mut linker).unwrap(),
            "-flavor wasm --export edgeweir_on_log --export=__heap_base a file.o 1 -o out.wasm"
        );
    }

    #[test]
    fn the_oldest_compiler_is_the_one_that_the_workspace_names() {
        let tree = Tree::find().unwrap();
        let manifest = tree::read(&tree.path("Cargo.toml")).unwrap();
        let (major, minor) = OLDEST;
        assert!(manifest.contains(&format!("rust-version = \"{major}.{minor}\"")));
    }

    #[test]
    fn a_noted_compiler_comes_back_only_if_it_is_the_same() {
        let gone = json!({
            "cargo": "/nowhere/cargo", "rustc": "/nowhere/rustc",
            "version": "rustc 1.95.0", "has_std": true,
        });
        assert_eq!(Compiler::from_note(&gone), None);
        assert_eq!(Compiler::from_note(&json!({})), None);
    }
}
