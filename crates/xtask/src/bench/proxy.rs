//! What a filter adds to a request, against Envoy's own ways to do the like.
//!
//! Envoy answers by itself, so that nothing but the filter differs between rows.

use std::path::Path;

use anyhow::Result;

use super::load::{self, Target};
use crate::envoy::{self, Envoy};
use crate::tree::Tree;

/// A row: its name, and the filters in front of the router.
type Row = (&'static str, String);

/// Never reached in a measurement: what is compared is the cost of letting pass.
const LIMIT: &str = r#""limits": [{ "name": "bench", "requests": 1000000, "per_ms": 1000, "burst": 1000000, "key": ["client_address"] }]"#;
const CACHE: &str = r#""cache": {}"#;
const TRACE: &str = r#""trace": {}"#;

fn rows() -> Vec<Row> {
    let native_limit = r#"
- name: envoy.filters.http.local_ratelimit
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
    stat_prefix: bench
    token_bucket: { max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s }
    filter_enabled: { default_value: { numerator: 100 } }
    filter_enforced: { default_value: { numerator: 100 } }
"#;
    let lua = r#"
- name: envoy.filters.http.lua
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
    default_source_code:
      inline_string: |
        function envoy_on_response(handle)
          handle:headers():add("x-bench", "1")
        end
"#;
    vec![
        ("no filter", String::new()),
        ("Envoy's local rate limit", native_limit.to_owned()),
        ("Lua adds a header", lua.to_owned()),
        ("Edgeweir limit", ours("edgeweir-limit", LIMIT)),
        ("Edgeweir cache, a hit", ours("edgeweir-cache", CACHE)),
        ("Edgeweir trace", ours("edgeweir-trace", TRACE)),
        ("Edgeweir limit, whole module", ours("edgeweir", LIMIT)),
        ("Edgeweir trace, whole module", ours("edgeweir", TRACE)),
        ("Edgeweir limit + trace", ours("edgeweir", &[LIMIT, TRACE].join(", "))),
        ("Edgeweir all, a hit", ours("edgeweir", &[LIMIT, CACHE, TRACE].join(", "))),
    ]
}

/// The filter of `module` with the features of `config`, as `http_filters` has it.
pub(super) fn ours(module: &str, config: &str) -> String {
    format!(
        r#"
- name: {module}
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: {module}
      root_id: edgeweir
      failure_policy: FAIL_CLOSED
      vm_config:
        vm_id: bench
        runtime: envoy.wasm.runtime.v8
        code: {{ local: {{ filename: target/wasm/{module}.wasm }} }}
      configuration:
        "@type": type.googleapis.com/google.protobuf.StringValue
        value: '{{ {config} }}'
"#
    )
}

pub(super) fn run(tree: &Tree, binary: &Path) -> Result<()> {
    load::need_wrk()?;
    for workers in [1, 2] {
        let mut envoys: Vec<Envoy> = Vec::new();
        let mut targets = Vec::new();
        for (number, (name, filters)) in rows().into_iter().enumerate() {
            let config = config(&filters, DIRECT, "");
            let envoy = envoy::start(tree, binary, &format!("bench-{number}"), &config, workers)?;
            targets.push(Target {
                name: name.to_owned(),
                address: envoy.edge,
                path: "/".to_owned(),
                process: envoy.running.id(),
                status: 200,
            });
            envoys.push(envoy);
        }
        let title = format!("Cost of a filter, Envoy with {workers} worker(s), 1 KiB answers");
        load::compare(&title, &targets)?;
    }
    Ok(())
}

/// A route that answers by itself, and allows caches to keep the answer.
pub(super) const DIRECT: &str = "direct_response: { status: 200, body: { inline_string: BODY } }";

/// A plain configuration with `filters`, and one route for everything.
pub(super) fn config(filters: &str, route: &str, clusters: &str) -> String {
    let indent = |text: &str, width: usize| {
        text.lines().map(|line| format!("{:width$}{line}\n", "")).collect::<String>()
    };
    let route = route.replace("BODY", &"x".repeat(1024));
    let filters = indent(filters, 10);
    let clusters = indent(clusters, 2);
    format!(
        r#"admin:
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                {route}
                response_headers_to_add:
                - header: {{ key: cache-control, value: max-age=3600 }}
          http_filters:
{filters}          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
{clusters}"#
    )
}
