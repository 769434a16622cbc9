//! The standard variables of OpenTelemetry, and what becomes of those that are wrong.

use std::time::Duration;

use crate::config::traces::{NAMES, Traces, read};
use crate::trace::Settings;
use crate::trace::settings::{Compression, Parent, Propagation, Queue, Root, Sampler};

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

fn of(variables: &[(&'static str, &str)]) -> Traces {
    let set = variables.iter().map(|(name, value)| {
        assert!(NAMES.contains(name), "{name} is not read");
        (*name, (*value).to_owned())
    });
    read(&set.collect())
}

/// With an endpoint, and these variables.
fn settings(variables: &[(&'static str, &str)]) -> Settings {
    let mut all = vec![ENDPOINT];
    all.extend_from_slice(variables);
    let Traces { settings, warnings, .. } = of(&all);
    assert_eq!(warnings, Vec::<String>::new(), "{variables:?}");
    settings.unwrap_or_else(|| panic!("nothing is exported: {variables:?}"))
}

#[test]
fn nothing_is_exported_unless_somebody_asks() {
    for (variables, wanted) in [
        (vec![], false),
        (vec![("OTEL_SERVICE_NAME", "a"), ("OTEL_TRACES_SAMPLER", "?")], false),
        (vec![ENDPOINT], true),
        (vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c/x")], true),
        (vec![("OTEL_TRACES_EXPORTER", "otlp")], true),
        (vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")], true),
        (vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], false),
        (vec![ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "x")], false),
        (vec![ENDPOINT, ("OTEL_SDK_DISABLED", "false")], true),
    ] {
        let traces = of(&variables);
        assert_eq!(traces.settings.is_some(), wanted, "{variables:?}");
        assert_eq!(traces.warnings, Vec::<String>::new(), "{variables:?}");
    }
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let wanted = Settings {
        endpoint: "http://localhost:4318/v1/traces".to_owned(),
        timeout: Duration::from_secs(10),
        compression: Compression::None,
        certificate: None,
        sampler: Sampler { root: Root::On, parent: Parent::Decides },
        propagation: Propagation::W3c,
        queue: Queue { spans_max: 2048, batch_max: 512, delay: Duration::from_secs(5) },
        resource: vec![("service.name".to_owned(), "samekey".to_owned())],
    };
    assert_eq!(of(&[("OTEL_TRACES_EXPORTER", "otlp")]).settings, Some(wanted));
}

#[test]
fn an_endpoint_for_all_signals_has_a_path_added_and_one_for_traces_has_not() {
    for (variables, wanted) in [
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1/")], "http://c:1/v1/traces"),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/a/b")], "http://c/a/b/v1/traces"),
        (vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c/x?k=1")], "https://c/x?k=1"),
        (vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/y")], "http://t/y"),
    ] {
        let settings = of(&variables).settings.expect("on");
        assert_eq!(settings.endpoint, wanted, "{variables:?}");
    }
}

#[test]
fn each_variable_says_what_it_means() {
    let set = settings(&[
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,c=d%20e"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_PROPAGATORS", "none"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "65536"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "65536"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_RESOURCE_ATTRIBUTES", " team = a%2Cb ,service.name=x,"),
    ]);
    assert_eq!(set.timeout, Duration::from_secs(7));
    assert_eq!(set.compression, Compression::Gzip);
    assert_eq!(set.certificate.as_deref(), Some("/ca.pem".as_ref()));
    assert_eq!(set.sampler, Sampler { root: Root::Ratio(0.25), parent: Parent::Ignored });
    assert_eq!(set.propagation, Propagation::None);
    let queue = Queue { spans_max: 65_536, batch_max: 65_536, delay: Duration::from_millis(1) };
    assert_eq!(set.queue, queue);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(set.resource, [pair("team", "a,b"), pair("service.name", "x")]);
    let named = settings(&[
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x"),
        ("OTEL_SERVICE_NAME", "y"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "2000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ]);
    assert_eq!(named.resource, [pair("service.name", "y")]);
    assert_eq!(named.timeout, Duration::from_secs(2), "whichever is shorter");
    assert_eq!((named.queue.spans_max, named.queue.batch_max), (100, 100));
    assert_eq!(named.sampler, Sampler { root: Root::Off, parent: Parent::Decides });
}

#[test]
fn one_for_traces_goes_before_one_for_all() {
    let set = settings(&[
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
    ]);
    assert_eq!((set.timeout, set.compression), (Duration::from_millis(2), Compression::None));
}

#[test]
fn what_is_wrong_is_told_by_its_name_and_never_repeated() {
    // The variable, a value, and whether spans are exported all the same.
    for (name, value, exported) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", false),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", false),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "wrong", true),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "wrong", false),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://wrong/", false),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:wrong@host/", false),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "wrong", true),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", true),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3600001", true),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "wrong", true),
        ("OTEL_EXPORTER_OTLP_HEADERS", "wrong", true),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=wrong%0A", true),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/wrong", true),
        ("OTEL_EXPORTER_OTLP_INSECURE", "true", true),
        ("OTEL_CONFIG_FILE", "wrong", true),
        ("OTEL_SDK_DISABLED", "wrong", true),
        ("OTEL_TRACES_EXPORTER", "zipkin", false),
        ("OTEL_TRACES_EXPORTER", "otlp,console", true),
        ("OTEL_TRACES_SAMPLER", "wrong", true),
        ("OTEL_PROPAGATORS", "tracecontext,wrong", true),
        ("OTEL_RESOURCE_ATTRIBUTES", "wrong", true),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,wrong", true),
        ("OTEL_RESOURCE_ATTRIBUTES", "=wrong", true),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%ffwrong", true),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", true),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "65537", true),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2049", true),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", true),
        ("OTEL_BSP_EXPORT_TIMEOUT", "wrong", true),
    ] {
        let traces = of(&[ENDPOINT, (name, value)]);
        assert_eq!(traces.settings.is_some(), exported, "{name}={value}");
        let [warning] = &traces.warnings[..] else {
            panic!("one warning of {name}={value}, not {:?}", traces.warnings)
        };
        assert!(warning.starts_with(&format!("{name}: ")), "{warning}");
        assert!(!warning.contains("wrong"), "{warning}");
        if let Some(settings) = traces.settings {
            let queue = settings.queue;
            assert!(queue.batch_max <= queue.spans_max && queue.spans_max <= 65_536, "{queue:?}");
        }
    }
    for argument in ["wrong", "1.01", "-0.1", "NaN"] {
        let sampler = ("OTEL_TRACES_SAMPLER", "traceidratio");
        let traces = of(&[ENDPOINT, sampler, ("OTEL_TRACES_SAMPLER_ARG", argument)]);
        assert!(traces.warnings[0].starts_with("OTEL_TRACES_SAMPLER_ARG: "));
        assert_eq!(traces.settings.expect("on").sampler.root, Root::Ratio(1.0));
    }
}
