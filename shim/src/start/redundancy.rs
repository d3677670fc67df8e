//! How many servers have each page, and where servers are.

use super::servers::InZone;
use tmem_config::Options;
use tmem_pager::engine::Redundancy;
use tmem_pager::net::Endpoint;
use tmem_pager::slots::Location;

/// What is done so that the loss of a server loses no page. Each server comes with its
/// zone, and `memory` is what shares of memory are shares of.
pub(super) fn redundancy(options: &Options, servers: &[InZone], memory: u64) -> Redundancy {
    let locations = locations(servers);
    // Each machine is numbered as its first server. A name without an address may be any.
    let machines = (0..).zip(&locations).zip(servers);
    let machines = machines.filter(|((i, l), (e, _))| l.machine == *i && !e.addrs.is_empty());
    let machines = machines.count();
    let copies = match options.redundancy {
        Some(redundancy) => redundancy.copies(),
        None if machines > 1 => 2,
        None => 1,
    };
    Redundancy {
        copies,
        locations,
        repair_rate: options.repair_rate.bytes(memory),
    }
}

/// Servers that have an address in common are on one machine.
fn locations(servers: &[InZone]) -> Vec<Location> {
    let first = |is_it: &dyn Fn(&InZone) -> bool| {
        let at = servers.iter().position(is_it);
        at.and_then(|at| u16::try_from(at).ok())
    };
    let meets = |a: &Endpoint, b: &Endpoint| {
        let mut ips = a.addrs.iter().map(|addr| addr.ip());
        ips.any(|ip| b.addrs.iter().any(|addr| addr.ip() == ip))
    };
    let numbered = (0..=u16::MAX).zip(servers);
    let located = numbered.map(|(number, (endpoint, zone))| Location {
        machine: first(&|(e, _)| meets(e, endpoint)).unwrap_or(number),
        zone: zone
            .as_ref()
            .and_then(|zone| first(&|(_, z)| z.as_ref() == Some(zone))),
        is_here: false,
    });
    located.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(addrs: &[&str], zone: Option<&str>) -> (Endpoint, Option<String>) {
        let endpoint = Endpoint {
            name: String::new(),
            addrs: addrs.iter().filter_map(|a| a.parse().ok()).collect(),
            agent: None,
        };
        (endpoint, zone.map(str::to_owned))
    }

    #[test]
    fn two_copies_are_made_where_there_are_two_machines() {
        let copies = |servers: &[_]| redundancy(&Options::default(), servers, 0).copies;
        let [a, b] = [server(&["10.0.0.1:1"], None), server(&["10.0.0.2:1"], None)];
        let also_a = server(&["[::1]:3", "10.0.0.1:2"], None);
        assert_eq!(copies(std::slice::from_ref(&a)), 1);
        assert_eq!(copies(&[a.clone(), also_a.clone()]), 1);
        assert_eq!(copies(&[a.clone(), server(&[], None)]), 1);
        assert_eq!(copies(&[a, also_a, b]), 2);
    }

    #[test]
    fn what_is_asked_for_counts() {
        let options = Options {
            redundancy: Some(tmem_config::Redundancy::Copies(3)),
            ..Options::default()
        };
        assert_eq!(redundancy(&options, &[server(&[], None)], 0).copies, 3);
    }

    #[test]
    fn servers_without_an_address_are_apart_and_zones_have_names() {
        let servers = [
            server(&[], Some("a")),
            server(&[], None),
            server(&["10.0.0.1:1"], Some("b")),
            server(&["10.0.0.1:2"], Some("a")),
        ];
        let places: Vec<_> = locations(&servers)
            .iter()
            .map(|l| (l.machine, l.zone))
            .collect();
        assert_eq!(
            places,
            [(0, Some(0)), (1, None), (2, Some(2)), (2, Some(0))]
        );
    }
}
