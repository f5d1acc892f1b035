//! Builds both WebAssembly modules and shapes them for shipping.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use walrus::{ExportItem, Module, ModuleConfig};

use crate::callbacks::{self, FEATURES, HOSTS, MARKER, OURS, SHIPPED, Shipped};
use crate::child::{quietly, say};
use crate::compiler::Compiler;
use crate::stamp::{self, Stamp};
use crate::tree::{self, Tree};

/// Envoy compiles a module on its main thread, about 2 ms per KiB: keep it small.
const LARGEST: u64 = 512 * 1024;

/// Size: what a request costs in a filter are the host's calls, not our instructions,
/// and for speed (`3`) the module is half as large again.
const FILTER_LEVEL: &str = "z";

/// What both modules are built from.
const SHARED_SOURCES: [&str; 3] = ["Cargo.toml", "Cargo.lock", "crates/edgeweir"];

/// What Rust's wasm32 target uses, and Envoy's engine and every supported Node have.
const WASM_FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-nontrapping-float-to-int",
    "--enable-sign-ext",
    "--enable-mutable-globals",
    "--enable-reference-types",
    "--enable-multivalue",
];

const OPTIMISE: Duration = Duration::from_secs(600);

/// Where a shipped filter lies.
pub(crate) fn filter(tree: &Tree, name: &str) -> PathBuf {
    tree.path("target/wasm").join(format!("{name}.wasm"))
}

/// Builds the filters into `target/wasm` and the package's module into `js/wasm`.
pub(crate) fn build(tree: &Tree, compiler: &Compiler) -> Result<()> {
    let optimiser = Optimiser::find(tree);
    say(&match &optimiser {
        Some(found) => format!("wasm-opt: {}", tree.shown(&found.0)),
        None => "wasm-opt: not found, modules stay as the compiler made them \
                 (the npm package binaryen has it)"
            .to_owned(),
    });
    build_filters(tree, compiler, optimiser.as_ref())?;
    build_package_module(tree, compiler, optimiser.as_ref())
}

fn stamp(
    tree: &Tree,
    compiler: &Compiler,
    optimiser: Option<&Optimiser>,
    sources: &[&str],
) -> Result<Stamp> {
    // What this tool does to a module is an input too.
    let own = [include_str!("wasm.rs"), include_str!("callbacks.rs"), include_str!("compiler.rs")]
        .concat();
    let mut stamp = Stamp::new()
        .text(&compiler.describe())
        .text(&optimiser.map(|found| found.0.display().to_string()).unwrap_or_default())
        .text(&own);
    for source in sources {
        stamp = stamp.path(tree, source)?;
    }
    Ok(stamp)
}

fn build_filters(tree: &Tree, compiler: &Compiler, optimiser: Option<&Optimiser>) -> Result<()> {
    let sources = [&SHARED_SOURCES[..], &["crates/edgeweir-filter"]].concat();
    let stamp = stamp(tree, compiler, optimiser, &sources)?;
    let manifest = tree.path("target/wasm/sources.fnv1a");
    let mut outputs: Vec<PathBuf> = SHIPPED.iter().map(|one| filter(tree, one.name)).collect();
    outputs.push(manifest.clone());
    if !stamp.is_fresh(tree, "filters", &outputs) {
        let raw = compiler.build(tree, "edgeweir-filter", FILTER_LEVEL)?;
        let raw = std::fs::read(&raw).with_context(|| format!("cannot read {}", raw.display()))?;
        for shipped in &SHIPPED {
            let path = filter(tree, shipped.name);
            let shaped = shape(&raw, shipped).with_context(|| shipped.name.to_owned())?;
            tree::write(&path, shaped)?;
            if let Some(optimiser) = optimiser {
                optimiser.run(tree, &path)?;
            }
            check(&std::fs::read(&path)?).with_context(|| shipped.name.to_owned())?;
        }
        tree::write(&manifest, stamp::manifest(tree, &sources)?)?;
        stamp.done(tree, "filters")?;
    }
    for shipped in &SHIPPED {
        let path = filter(tree, shipped.name);
        let size = show_size(tree, &path)?;
        ensure!(
            size <= LARGEST || optimiser.is_none(),
            "{} has {size} bytes, at most {LARGEST} are allowed",
            tree.shown(&path)
        );
    }
    Ok(())
}

fn build_package_module(
    tree: &Tree,
    compiler: &Compiler,
    optimiser: Option<&Optimiser>,
) -> Result<()> {
    let sources = [&SHARED_SOURCES[..], &["crates/edgeweir-js"]].concat();
    let stamp = stamp(tree, compiler, optimiser, &sources)?;
    let folder = tree.path("js/wasm");
    let module = folder.join("edgeweir_js_bg.wasm");
    if !stamp.is_fresh(tree, "package-module", std::slice::from_ref(&module)) {
        let raw = compiler.build(tree, "edgeweir-js", "3")?;
        // The bundler's form keeps the glue apart from how the module is loaded, which
        // the package does by hand: inlined or imported.
        wasm_bindgen_cli_support::Bindgen::new()
            .input_path(&raw)
            .out_name("edgeweir_js")
            .bundler(true)?
            .typescript(true)
            .remove_name_section(true)
            .remove_producers_section(true)
            .generate(&folder)
            .context("wasm-bindgen")?;
        if let Some(optimiser) = optimiser {
            optimiser.run(tree, &module)?;
        }
        stamp.done(tree, "package-module")?;
    }
    show_size(tree, &module)?;
    Ok(())
}

fn show_size(tree: &Tree, path: &Path) -> Result<u64> {
    let size = std::fs::metadata(path)?.len();
    say(&format!("  {:<34} {:>7} bytes", tree.shown(path), size));
    Ok(size)
}

/// Turns the compiled filter into a shipped one: the host's names, only the callbacks
/// of its features, and nothing that only a debugger reads.
fn shape(raw: &[u8], shipped: &Shipped) -> Result<Vec<u8>> {
    let mut module = ModuleConfig::new()
        .generate_name_section(false)
        .generate_producers_section(false)
        .parse(raw)
        .context("cannot read the compiled module")?;
    let exports: Vec<_> =
        module.exports.iter().map(|export| (export.id(), export.name.clone())).collect();
    for (id, name) in exports {
        if callbacks::PLAIN_EXPORTS.contains(&name.as_str()) {
            continue;
        }
        let Some(callback) = name.strip_prefix(OURS) else {
            module.exports.delete(id);
            continue;
        };
        let Some(features) = callbacks::features_of(callback) else {
            bail!("the filter exports {name}, which the table of callbacks does not have");
        };
        if features.chars().any(|letter| shipped.features.contains(letter)) {
            module.exports.get_mut(id).name = format!("{HOSTS}{callback}");
        } else {
            module.exports.delete(id);
        }
    }
    mark(&mut module, shipped.features)?;
    let customs: Vec<_> = module.customs.iter().map(|(id, _)| id).collect();
    for id in customs {
        module.customs.delete(id);
    }
    walrus::passes::gc::run(&mut module);
    Ok(module.emit_wasm())
}

/// Writes into the module's data which features it has.
fn mark(module: &mut Module, features: &str) -> Result<()> {
    let mut marked = 0;
    let segments: Vec<_> = module.data.iter().map(walrus::Data::id).collect();
    for segment in segments {
        let data = module.data.get_mut(segment);
        let places: Vec<usize> = data
            .value
            .windows(MARKER.len())
            .enumerate()
            .filter(|(_, window)| *window == MARKER)
            .map(|(place, _)| place + MARKER.len())
            .collect();
        for place in places {
            let Some(letters) = data.value.get_mut(place..place + FEATURES.len()) else { continue };
            if letters != FEATURES.as_bytes() {
                continue;
            }
            for letter in letters {
                if !features.as_bytes().contains(letter) {
                    *letter = b'-';
                }
            }
            marked += 1;
        }
    }
    ensure!(
        marked == 1,
        "the compiled module names its features {marked} times, which must be once"
    );
    Ok(())
}

/// Holds a finished module against the lists of imports and exports.
fn check(bytes: &[u8]) -> Result<()> {
    let module = Module::from_buffer(bytes).context("cannot read the finished module")?;
    for import in module.imports.iter() {
        let name = format!("{}.{}", import.module, import.name);
        ensure!(
            callbacks::IMPORTS.contains(&name.as_str()),
            "imports {name}, which is not on the list of host calls"
        );
    }
    for export in module.exports.iter() {
        let is_callback = export
            .name
            .strip_prefix(HOSTS)
            .is_some_and(|name| callbacks::features_of(name).is_some());
        let is_listed = is_callback && matches!(export.item, ExportItem::Function(_))
            || callbacks::PLAIN_EXPORTS.contains(&export.name.as_str());
        ensure!(is_listed, "exports {}, which is not on the list", export.name);
    }
    for needed in ["memory", "proxy_abi_version_0_2_1", "proxy_on_memory_allocate"] {
        ensure!(
            module.exports.iter().any(|export| export.name == needed),
            "does not export {needed}"
        );
    }
    Ok(())
}

/// Binaryen's optimiser.
struct Optimiser(PathBuf);

impl Optimiser {
    /// The package's own one first: its version is pinned.
    fn find(tree: &Tree) -> Option<Self> {
        let own = tree.path("js/node_modules/.bin/wasm-opt");
        let on_path = std::env::var_os("PATH")?;
        std::iter::once(own)
            .chain(std::env::split_paths(&on_path).map(|folder| folder.join("wasm-opt")))
            .find(|candidate| candidate.exists())
            .map(Self)
    }

    /// Optimises a module in place, for speed: that is also within a percent of the
    /// smallest.
    fn run(&self, tree: &Tree, path: &Path) -> Result<()> {
        let name = path.file_stem().unwrap_or_default().display();
        let mut optimise = Command::new(&self.0);
        optimise.arg("-O3").args(WASM_FEATURES).arg(path).arg("-o").arg(path);
        quietly(tree, &format!("optimise {name}"), OPTIMISE, &mut optimise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module as the compiler makes it: our entry points, the SDK's, and the marker.
    fn compiled(exports: &[&str], data: &[u8]) -> Vec<u8> {
        let mut module = Module::default();
        let memory = module.memories.add_local(false, false, 1, None, None);
        module.exports.add("memory", memory);
        let offset = walrus::ConstExpr::Value(walrus::ir::Value::I32(0));
        let data_id = module.data.add(walrus::DataKind::Active { memory, offset }, data.to_vec());
        module.memories.get_mut(memory).data_segments.insert(data_id);
        for name in exports {
            let function = walrus::FunctionBuilder::new(&mut module.types, &[], &[])
                .finish(vec![], &mut module.funcs);
            module.exports.add(name, function);
        }
        module.emit_wasm()
    }

    const NEEDED: [&str; 2] = ["edgeweir_abi_version_0_2_1", "edgeweir_on_memory_allocate"];
    const LIMIT: Shipped = Shipped { name: "edgeweir-limit", features: "l" };

    fn names(module: &[u8]) -> Vec<String> {
        let module = Module::from_buffer(module).unwrap();
        module.exports.iter().map(|export| export.name.clone()).collect()
    }

    #[test]
    fn only_the_callbacks_of_a_feature_survive_under_the_hosts_names() {
        let exports = [&NEEDED[..], &["edgeweir_on_request_headers", "edgeweir_on_response_body"]];
        let exports = [&exports.concat()[..], &["proxy_on_tick", "malloc"]].concat();
        let shaped = shape(&compiled(&exports, b"..edgeweir-features:lct.."), &LIMIT).unwrap();
        assert_eq!(
            names(&shaped),
            [
                "memory",
                "proxy_abi_version_0_2_1",
                "proxy_on_memory_allocate",
                "proxy_on_request_headers"
            ]
        );
        check(&shaped).unwrap();
        let features = b"edgeweir-features:l--";
        assert!(shaped.windows(features.len()).any(|window| window == features));
    }

    #[test]
    fn a_module_that_is_not_what_we_ship_is_refused() {
        let cases: [(&[&str], &[u8], &str); 4] = [
            (&NEEDED, b"", "0 times"),
            (&NEEDED, b"edgeweir-features:lct edgeweir-features:lct", "2 times"),
            (&["edgeweir_on_everything"], b"edgeweir-features:lct", "edgeweir_on_everything"),
            (&["edgeweir_on_tick"], b"edgeweir-features:lct", "proxy_abi_version_0_2_1"),
        ];
        for (exports, data, complaint) in cases {
            let done = shape(&compiled(exports, data), &LIMIT).and_then(|module| check(&module));
            let error = format!("{:#}", done.unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_host_call_that_is_not_on_the_list_is_refused() {
        let mut module = Module::default();
        let kind = module.types.add(&[], &[]);
        let (function, _) = module.add_import_func("env", "proxy_get_status", kind);
        module.exports.add("proxy_on_tick", function);
        let error = check(&module.emit_wasm()).unwrap_err();
        assert!(error.to_string().contains("env.proxy_get_status"), "{error}");
    }
}
