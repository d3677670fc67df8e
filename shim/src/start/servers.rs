//! What the engine is told of memory servers: where they are, and the secret.

use super::say;
use crate::family;
use std::net::ToSocketAddrs;
use tmem_config::{AgentAddr, Level, Options, Scheme, ServerAddr};
use tmem_pager::names::Names;
use tmem_pager::net;

/// The secret that clients and servers share, if one is set.
pub(super) fn secret(options: &Options) -> Result<Option<Vec<u8>>, String> {
    // The file may be out of reach for a program that has given up rights.
    if let Some(secret) = family::secret() {
        return Ok(Some(secret));
    }
    let secret = options.secret_file.as_deref();
    secret
        .map(tmem_config::read_secret)
        .transpose()
        .map_err(|e| e.to_string())
}

/// A server, and its zone.
pub(super) type InZone = (net::Endpoint, Option<String>);

/// The servers that can be used, or can be once their names are resolved.
pub(super) fn endpoints(options: &Options, names: Option<&Names>) -> Result<Vec<InZone>, String> {
    let (mut endpoints, mut problems) = (Vec::new(), Vec::new());
    for server in &options.servers {
        match endpoint(server, names) {
            Ok(endpoint) => endpoints.push((endpoint, server.zone.clone())),
            Err(text) => problems.push(text),
        }
    }
    if endpoints.is_empty() && !problems.is_empty() {
        return Err(problems.join("; "));
    }
    if options.log >= Level::Warn && !family::is_checked() {
        problems
            .iter()
            .for_each(|text| say(&format!("{text}; going on with the others")));
    }
    Ok(endpoints)
}

fn endpoint(server: &ServerAddr, names: Option<&Names>) -> Result<net::Endpoint, String> {
    let agent = match server.scheme {
        Scheme::Any | Scheme::Tcp => None,
        Scheme::Embedded => {
            return Err("an embedded memory server is for `tmem run`".to_owned());
        }
        Scheme::Rdma => {
            let agent = AgentAddr::from_env().map_err(|e| e.to_string())?;
            let agent = agent.ok_or_else(|| {
                format!(
                    "server {server}: RDMA takes an agent: start the program with `tmem run`, \
                     or start `tmem agent` and set what it prints"
                )
            })?;
            Some(net::Agent {
                name: agent.name.into_bytes(),
                token: agent.token,
            })
        }
    };
    let name = server.to_string();
    // Names are asked for now: the engine does without the C library. It says which have
    // no address.
    let ask = || (server.host.as_str(), server.port).to_socket_addrs();
    let addrs = match names.and_then(|names| names.find(&name)) {
        Some(addrs) => addrs,
        None => ask().map(Iterator::collect).unwrap_or_default(),
    };
    Ok(net::Endpoint { name, addrs, agent })
}
