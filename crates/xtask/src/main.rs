//! `cargo xtask`: sets a machine up, builds what is shipped, shows it and tests it.
//!
//! Everything that this tool fetches or builds lies under `target/`, `js/node_modules`,
//! `js/wasm` and `js/dist`. A step that has nothing new to do is skipped: it compares
//! the content of its inputs ([`stamp`]), never times.
//!
//! | module | what it does |
//! |---|---|
//! | [`tree`] | where things lie in this repository |
//! | [`child`] | starts programs, waits for them with a limit, ends all of them on the way out |
//! | [`stamp`] | knows whether a step's inputs changed |
//! | [`compiler`] | finds a compiler for wasm32, or fetches one |
//! | [`envoy`] | finds or fetches Envoy; starts one on free ports |
//! | [`npm`] | the JavaScript package: dependencies, build, checks, tarball |
//! | [`callbacks`] | which callbacks each shipped filter exports, which host calls it may import |
//! | [`wasm`] | builds both WebAssembly modules and shapes them for shipping |
//! | [`http`] | one HTTP/1.1 request over a fresh connection |
//! | [`demo`] | `cargo xtask demo` |
//! | [`check`] | `cargo xtask test` and `bless` |
//! | [`bench`] | `cargo xtask bench` |

mod bench;
mod callbacks;
mod check;
mod child;
mod compiler;
mod demo;
mod envoy;
mod http;
mod npm;
mod stamp;
mod tree;
mod wasm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::compiler::Compiler;
use crate::tree::Tree;

const USAGE: &str = "\
cargo xtask COMMAND

  setup         find or fetch a wasm32 compiler, Envoy and the npm packages
  wasm          build both WebAssembly modules; print their sizes
  npm           build, check and pack the JavaScript package
  demo [--keep] show limit, cache and trace on live traffic through a real Envoy
  test          run every test, lint and format check (what CI runs)
  bench [GROUP] measure against the alternatives; groups: proxy, limit, cache, core, node
  bless         rewrite the expected outputs that tests compare with

Environment:
  EDGEWEIR_ENVOY  use this Envoy binary instead of fetching one
  EDGEWEIR_RUSTC  use this rustc (and the cargo beside it) for wasm32
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = child::end_all_on_signal().and_then(|()| run(&arguments));
    // Whatever a step started and did not end itself, in success as in failure.
    child::end_all();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let tree = Tree::find()?;
    match arguments {
        ["setup"] => setup(&tree).map(|_| ()),
        ["wasm"] => {
            let compiler = compiler::choose(&tree)?;
            npm::install(&tree)?;
            wasm::build(&tree, &compiler)
        }
        ["npm"] => {
            prepare(&tree)?;
            npm::pack(&tree)
        }
        ["demo"] => demo::run(&tree, &prepare(&tree)?.1, false),
        ["demo", "--keep"] => demo::run(&tree, &prepare(&tree)?.1, true),
        ["bench"] => bench::run(&tree, &prepare(&tree)?.1, None),
        ["bench", group] => bench::run(&tree, &prepare(&tree)?.1, Some(group)),
        ["bless"] => check::bless(&tree),
        ["test"] => check::run(&tree),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown command `{}`\n\n{USAGE}", other.join(" ")),
    }
}

fn setup(tree: &Tree) -> Result<(Compiler, PathBuf)> {
    let compiler = compiler::choose(tree)?;
    let envoy = envoy::find(tree)?;
    npm::install(tree)?;
    Ok((compiler, envoy))
}

/// Sets up and builds everything that the demo and the tests run; gives the compiler
/// and the Envoy.
fn prepare(tree: &Tree) -> Result<(Compiler, PathBuf)> {
    let (compiler, envoy) = setup(tree)?;
    wasm::build(tree, &compiler)?;
    npm::build(tree)?;
    Ok((compiler, envoy))
}
