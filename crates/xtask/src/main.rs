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
//! | [`check`] | `cargo xtask test` |

mod callbacks;
mod check;
mod child;
mod compiler;
mod envoy;
mod npm;
mod stamp;
mod tree;
mod wasm;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::tree::Tree;

const USAGE: &str = "\
cargo xtask COMMAND

  setup         find or fetch a wasm32 compiler, Envoy and the npm packages
  wasm          build both WebAssembly modules; print their sizes
  npm           build, check and pack the JavaScript package
  test          run every test, lint and format check (what CI runs)

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
        ["setup"] => setup(&tree),
        ["wasm"] => {
            let compiler = compiler::choose(&tree)?;
            npm::install(&tree)?;
            wasm::build(&tree, &compiler)
        }
        ["npm"] => {
            setup(&tree)?;
            wasm::build(&tree, &compiler::choose(&tree)?)?;
            npm::pack(&tree)
        }
        ["test"] => check::run(&tree),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("unknown command `{}`\n\n{USAGE}", other.join(" ")),
    }
}

fn setup(tree: &Tree) -> Result<()> {
    compiler::choose(tree)?;
    envoy::find(tree)?;
    npm::install(tree)
}
