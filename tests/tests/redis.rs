//! redis-server on remote memory: what was stored comes back.

use tmem_tests::compare::{Setting, assert_sound};
use tmem_tests::inputs::Inputs;
use tmem_tests::redis::Redis;
use tmem_tests::{MemServer, Outcome, Run, scale, software};

/// Values of 4 KiB on the average.
fn values() -> u64 {
    scale::pick(12_000, 125_000)
}

/// Fills a redis-server, reads it back twice and ends it.
fn serve(run: impl FnOnce(Run) -> Run) -> Outcome {
    let folder = Inputs::default();
    let socket = folder.dir().join("socket");
    let server = software::find("redis-server", "redis-server");
    let program = Run::new(server)
        .args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--unixsocket",
        ])
        .args([&socket])
        .args(["--dir".as_ref(), folder.dir().as_os_str()]);
    let running = run(program).spawn();
    let mut redis = Redis::connect(&socket);
    redis.fill(values());
    redis.read_back(values());
    redis.read_back(values());
    redis.shutdown();
    running.wait().ok()
}

fn check(setting: Setting, shares: &[u64]) {
    let native = serve(|program| program);
    for share in shares {
        let budget = native.max_rss * share / 100;
        let servers: Vec<_> = (0..setting.servers).map(|_| MemServer::roomy()).collect();
        let addresses = servers.iter().map(MemServer::address);
        let paged = serve(|program| {
            program
                .local(budget)
                .page_path(setting.path)
                .servers(addresses)
        });
        eprintln!("{share} %, {setting:?}: {}", paged.describe());
        assert_sound(&paged, budget);
        assert!(paged.figures().evicted_pages > 0, "{}", paged.describe());
    }
}

#[test]
fn redis_gives_back_what_it_was_given() {
    check(Setting::PLAIN, &[50, 25, 10]);
}

#[test]
fn redis_gives_it_back_from_two_servers() {
    check(Setting::TWO_SERVERS, &[25]);
}

#[test]
fn redis_gives_it_back_by_copying_pages() {
    check(Setting::COPY, &[25]);
}
