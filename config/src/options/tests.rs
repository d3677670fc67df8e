//! Tests of the options.

use super::*;
use crate::parse_servers;
use proptest::prelude::*;
use std::os::unix::ffi::OsStringExt;

fn vars(list: &[(&str, &str)]) -> Result<Layer, ConfigError> {
    Layer::from_vars(|name| {
        let found = list.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| OsString::from(value))
    })
}

fn toml(text: &str) -> Result<Layer, ConfigError> {
    file::parse(Path::new("/etc/tmem.toml"), text)
}

/// A layer that names every option, with no default among them.
fn full() -> Layer {
    Layer {
        local: Some(Local::Size(Size::Bytes(3 << 29))),
        local_tier: Some(Size::Bytes(1 << 29)),
        spill: Some("/var/tmp".into()),
        local_min: Some(Size::Bytes(1 << 28)),
        local_max: Some(Size::Bytes(1 << 31)),
        per_process: Some(true),
        servers: Some(parse_servers("a:1,zone=z,tcp://b:2,rdma://[::1]:3").unwrap()),
        redundancy: Some(Redundancy::Copies(3)),
        repair_rate: Some(Size::Bytes(1 << 20)),
        on_loss: Some(OnLoss::Wait(Some(600))),
        secret_file: Some("/etc/key".into()),
        config: Some("/c".into()),
        strict: Some(true),
        unpaged_ok: Some(true),
        log: Some(Level::Debug),
        summary: Some(true),
        stats_file: Some("/etc/s.json".into()),
        plot: Some("/etc/p.svg".into()),
        metrics: Some("[::1]:9171".parse().unwrap()),
        page_path: Some(PagePath::Copy),
        compress: Some(AutoMode::Always),
        compressed_cache: Some(AutoMode::Never),
        evict: Some(Evict::All),
    }
}

#[test]
fn every_option_has_the_same_name_as_flag_variable_and_key() {
    for option in OPTIONS {
        let name = option.key.unwrap_or(option.flag);
        let variable = format!("TMEM_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(option.variable, variable);
        // One flag names one server.
        let flag = if name == "servers" { "server" } else { name };
        assert_eq!(option.flag, flag);
    }
}

#[test]
fn every_option_is_read_from_variables_and_written_back() {
    let env = full().to_env();
    assert_eq!(env.len(), OPTIONS.len());
    let again = Layer::from_vars(|name| {
        let found = env.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| value.clone())
    });
    assert_eq!(again.unwrap(), full());
    assert!(Layer::default().to_env().is_empty());
}

#[test]
fn every_option_is_read_from_flags() {
    let env = full().to_env();
    let of_flag = |flag: &str| {
        let option = OPTIONS.iter().find(|option| option.flag == flag)?;
        let (_, value) = env.iter().find(|(name, _)| *name == option.variable)?;
        // A flag that is a list may be given several times.
        let values: Vec<OsString> = match option.is_list {
            true => {
                let text = value.to_str()?;
                text.split(',').map(OsString::from).collect()
            }
            false => vec![value.clone()],
        };
        Some(if option.value.is_some() {
            values
        } else {
            Vec::new()
        })
    };
    assert_eq!(Layer::from_flags(of_flag).unwrap(), full());
    assert_eq!(Layer::from_flags(|_| None).unwrap(), Layer::default());
    let wrong = Layer::from_flags(|flag| (flag == "local").then(|| vec!["x".into()]));
    let message = wrong.unwrap_err().to_string();
    assert!(
        message.starts_with("--local `x` is not a size"),
        "{message}"
    );
}

#[test]
fn every_key_is_read_from_the_file() {
    let text = "local = \"1.5G\"\nlocal-min = \"256M\"\nlocal-max = \"2G\"\nper-process = true\n\
        local-tier = \"512M\"\nspill = \"/var/tmp\"\n\
        servers = [\"a:1,zone=z\", \"tcp://b:2\", \"rdma://[::1]:3\", \"tcp://a:1\"]\n\
        redundancy = \"copies=3\"\nrepair-rate = \"1M\"\non-loss = \"wait=10m\"\n\
        secret-file = \"key\"\nstrict = true\nunpaged-ok = \"yes\"\nlog = \"debug\"\n\
        summary = true\nstats-file = \"/etc/s.json\"\nplot = \"/etc/p.svg\"\nmetrics = \"[::1]:9171\"\npage-path = \"copy\"\n\
        compress = \"always\"\ncompressed-cache = \"never\"\nevict = \"all\"\n";
    let keys = OPTIONS.iter().filter(|option| option.key.is_some()).count();
    assert_eq!(text.lines().count(), keys);
    let expected = Layer {
        config: None,
        ..full()
    };
    assert_eq!(toml(text).unwrap(), expected);
}

#[test]
fn empty_variables_count_as_unset() {
    let layer = vars(&[("TMEM_LOCAL", ""), ("TMEM_LOG", "")]);
    assert_eq!(layer.unwrap(), Layer::default());
}

#[test]
fn a_malformed_variable_is_named_with_its_value_and_what_is_allowed() {
    for (name, value, allowed) in [
        ("TMEM_LOCAL", "lots", "512M"),
        ("TMEM_SERVERS", "a:1,b", "host:port"),
        ("TMEM_STRICT", "maybe", "true"),
        ("TMEM_LOG", "loud", "error, warn, info or debug"),
        ("TMEM_PAGE_PATH", "fast", "auto, move or copy"),
        ("TMEM_EVICT", "never", "needed or all"),
        ("TMEM_COMPRESS", "yes", "auto, always or never"),
        ("TMEM_COMPRESSED_CACHE", "1", "auto, always or never"),
        ("TMEM_SUMMARY", "2", "true"),
        ("TMEM_METRICS", ":9171", "127.0.0.1:9171"),
    ] {
        let message = vars(&[(name, value)]).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{name}=`")), "{message}");
        assert!(message.contains(allowed), "{message}");
    }
    let bytes = Layer::from_vars(|name| {
        (name == "TMEM_LOCAL").then(|| OsString::from_vec(vec![b'1', 0xff]))
    });
    assert!(bytes.is_err());
}

#[test]
fn upper_layers_win_and_defaults_fill_in() {
    let upper = Layer {
        strict: Some(false),
        log: Some(Level::Info),
        ..Layer::default()
    };
    let lower = vars(&[("TMEM_STRICT", "1"), ("TMEM_LOCAL", "1G")]).unwrap();
    let expected = Options {
        local: Some(Local::Size(Size::Bytes(1 << 30))),
        log: Level::Info,
        ..Options::default()
    };
    assert_eq!(upper.or(lower).finish(), expected);
}

/// What is told of a default is what is used.
#[test]
fn defaults_are_told_as_they_are() {
    let defaults = Options::default();
    for (flag, told) in [
        ("local", None),
        ("stats-file", None),
        ("log", Some(defaults.log.to_string())),
        ("page-path", Some(defaults.page_path.to_string())),
        ("strict", Some("off".to_owned())),
    ] {
        let option = OPTIONS.iter().find(|option| option.flag == flag).unwrap();
        assert_eq!((option.default)(), told, "{flag}");
    }
    assert_eq!((defaults.log, defaults.strict), (Level::Warn, false));
}

#[test]
fn a_budget_may_follow_the_machine() {
    let layer = toml("local = \"auto\"\nlocal-max = \"50%\"").unwrap();
    assert_eq!(layer.local, Some(Local::Auto));
    assert_eq!(
        vars(&[("TMEM_LOCAL", "auto")]).unwrap().local,
        Some(Local::Auto)
    );
    let error = vars(&[("TMEM_LOCAL", "automatic")])
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("; or auto"), "{error}");
}

#[test]
fn a_size_may_be_a_number_and_servers_one_text() {
    let layer = toml("local = 536870912\nservers = \"a:1,b:2\"").unwrap();
    assert_eq!(layer.local, Some(Local::Size(Size::Bytes(512 << 20))));
    assert_eq!(layer.servers.unwrap().len(), 2);
}

#[test]
fn mistakes_in_the_file_are_named_with_its_line() {
    for (text, expected) in [
        (
            "\nlocla = 1",
            "/etc/tmem.toml, line 2: unknown key `locla`; known: local, local-min, local-max, per-process, servers",
        ),
        (
            "strict = true\nlocal = \"x\"",
            "line 2: local = `x` is not a size; allowed: bytes",
        ),
        ("local = -1", "line 1: local = `-1` is not a size"),
        (
            "local = [1]",
            "local = `[1]` is a list; allowed: text in quotes: bytes",
        ),
        (
            "servers = 3",
            "servers = `3` is a number; allowed: a list of addresses in quotes, as in [\"node1",
        ),
        ("servers = [\"a:1\", 7]", "servers = `7` is a number"),
        ("strict = \"si\"", "strict = `si` is neither yes nor no"),
        ("stats-file = true", "stats-file = `true` is true or false"),
        ("log = {a = 1}", "log = `{a = 1}` is a table; allowed: text"),
        ("log = [1,\n2]", "log = `[1,…` is a list"),
        ("config = \"x\"", "unknown key `config`"),
        ("a = 1\nb = = 2", "line 2: "),
    ] {
        let message = toml(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Layer::from_file(&folder.path().join("none.toml"));
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("none.toml: No such file"), "{message}");
}

proptest! {
    #[test]
    fn any_text_of_a_file_is_read_or_refused(text in "[a-z =\"\\[\\]0-9.\n-]{0,60}") {
        let _ = toml(&text);
    }

    #[test]
    fn any_value_of_a_key_is_read_or_refused(
        key in proptest::sample::select(OPTIONS),
        value in "[a-z\"'\\[\\]{},0-9.\u{e9}\n-]{0,50}",
    ) {
        let _ = toml(&format!("{} = {value}", key.key.unwrap_or("config")));
    }
}
