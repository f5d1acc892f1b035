//! A cache hit, against other caches in front of the same origin.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::load::{self, Target};
use super::proxy::{DIRECT, config, ours};
use crate::child::{Running, say};
use crate::envoy;
use crate::http::{self, LOCALHOST};
use crate::tree::{self, Tree};

const START: Duration = Duration::from_secs(30);

/// Something in front of the origin; dropping it ends it.
enum Server {
    Envoy(envoy::Envoy),
    Other(Running),
}

pub(super) fn run(tree: &Tree, binary: &Path) -> Result<()> {
    load::need_wrk()?;
    let origin = envoy::start(tree, binary, "bench-origin", &config("", DIRECT, ""), 1)?;
    let mut servers: Vec<Server> = Vec::new();
    let mut targets: Vec<Target> = Vec::new();
    let mut add = |name: &str, address: SocketAddr, server: Server| {
        let process = match &server {
            Server::Envoy(envoy) => envoy.running.id(),
            Server::Other(running) => running.id(),
        };
        let (name, path) = (name.to_owned(), "/".to_owned());
        targets.push(Target { name, address, path, process, status: 200 });
        servers.push(server);
    };

    let simple_cache = r#"
- name: envoy.filters.http.cache
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.cache.v3.CacheConfig
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig
"#;
    let rows = [
        ("Envoy, no cache", String::new()),
        ("Envoy, its cache filter", simple_cache.to_owned()),
        ("Envoy, Edgeweir cache", ours("edgeweir-cache", r#""cache": {}"#)),
        (
            "Envoy, Edgeweir cache + limit + trace",
            ours(
                "edgeweir",
                r#""cache": {}, "trace": {}, "limits": [{ "name": "bench", "requests": 1000000, "per_ms": 1000, "burst": 1000000, "key": ["client_address"] }]"#,
            ),
        ),
    ];
    for (number, (name, filters)) in rows.into_iter().enumerate() {
        let config = config(&filters, "route: { cluster: origin }", &cluster(origin.edge));
        let envoy = envoy::start(tree, binary, &format!("bench-cache-{number}"), &config, 1)?;
        add(name, envoy.edge, Server::Envoy(envoy));
    }
    match nginx(tree, origin.edge)? {
        Some((address, running)) => add("nginx proxy_cache", address, Server::Other(running)),
        None => say("nginx is left out: not installed (Debian: apt-get install nginx-light)"),
    }
    match varnish(tree, origin.edge)? {
        Some((address, running)) => add("Varnish", address, Server::Other(running)),
        None => say("Varnish is left out: not installed (Debian: apt-get install varnish)"),
    }
    load::compare("A cache hit of 1 KiB, one worker each", &targets)
}

fn cluster(origin: SocketAddr) -> String {
    format!(
        r"- name: origin
  type: STATIC
  load_assignment:
    cluster_name: origin
    endpoints:
    - lb_endpoints:
      - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}
",
        origin.ip(),
        origin.port()
    )
}

fn nginx(tree: &Tree, origin: SocketAddr) -> Result<Option<(SocketAddr, Running)>> {
    let Some(program) = installed("nginx") else { return Ok(None) };
    let address = free_address()?;
    let folder = tree.notes("run/nginx");
    // One worker and no log, as the others have; the cache lies where the system keeps
    // it in memory.
    let text = format!(
        "daemon off; pid nginx.pid; worker_processes 1; error_log error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
           uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
           keepalive_requests 1000000000;\n\
           proxy_cache_path cache keys_zone=all:10m;\n\
           server {{\n\
             listen {address};\n\
             location / {{ proxy_pass http://{origin}; proxy_cache all; }}\n\
           }}\n\
         }}\n"
    );
    tree::write(&folder.join("nginx.conf"), text)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "error.log"]);
    let running = Running::start(&mut command)?;
    wait(address, running).map(Some)
}

fn varnish(tree: &Tree, origin: SocketAddr) -> Result<Option<(SocketAddr, Running)>> {
    let Some(program) = installed("varnishd") else { return Ok(None) };
    let address = free_address()?;
    let folder = tree.notes("run/varnish");
    let mut command = Command::new(program);
    command
        .arg("-F")
        .args(["-a", &address.to_string(), "-b", &origin.to_string()])
        .args(["-s", "malloc,64m", "-j", "none", "-n"])
        .arg(&folder);
    let running = Running::start(&mut command)?;
    wait(address, running).map(Some)
}

fn wait(address: SocketAddr, mut running: Running) -> Result<(SocketAddr, Running)> {
    let deadline = Instant::now() + START;
    while http::get(address, "/").is_err() {
        if let Some(status) = running.ended()? {
            anyhow::bail!("{address}: ended with {status}");
        }
        ensure!(Instant::now() < deadline, "{address} does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((address, running))
}

/// A port that was free a moment ago, for servers that cannot say which one they took.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((LOCALHOST, 0))?.local_addr()?)
}

/// A program on the path, or where Debian has daemons.
fn installed(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}
