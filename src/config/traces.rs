//! The standard `OTEL_*` variables: whether spans are exported, where to, and which.
//!
//! They are often set for the application and reach this process by the way. So none of
//! them stops a start: what is wrong or not supported is told, by its name, and nothing or
//! the default stands for it (OpenTelemetry specification, "Environment variables").

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::exchange::Origin;
use crate::trace::Settings;
use crate::trace::settings::{Compression, Parent, Propagation, Queue, Root, Sampler};

/// What the standard variables say.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// How spans are exported, where they are.
    pub settings: Option<Settings>,
    /// What is wrong with a variable, or not supported; each names it.
    pub warnings: Vec<String>,
    /// How long the end may wait for a collector.
    pub at_end: Duration,
}

impl Default for Traces {
    fn default() -> Self {
        Self { settings: None, warnings: Vec::new(), at_end: Duration::from_secs(5) }
    }
}

/// The variables that are set, by their names.
pub(super) type Variables = BTreeMap<&'static str, String>;

/// Reads them.
pub(super) fn read(variables: &Variables) -> Traces {
    let mut reading = Reading { variables, warnings: Vec::new() };
    let settings = reading.settings();
    // Who exports nothing need not hear of what is wrong with how.
    let wanted = settings.is_some() || reading.is_wanted_in_vain();
    let warnings = if wanted { reading.warnings } else { Vec::new() };
    Traces { settings, warnings, ..Traces::default() }
}

struct Reading<'a> {
    variables: &'a Variables,
    warnings: Vec<String>,
}

impl<'a> Reading<'a> {
    fn settings(&mut self) -> Option<Settings> {
        if !self.is_on() {
            return None;
        }
        let protocol = self.has_protocol();
        let endpoint = self.endpoint()?;
        let timeout = self.millis_of_signal("TIMEOUT", 10_000);
        let settings = Settings {
            endpoint,
            timeout: timeout.min(self.millis("OTEL_BSP_EXPORT_TIMEOUT", 30_000)),
            compression: self.compression(),
            certificate: self.of_signal("CERTIFICATE").map(|(_, file)| PathBuf::from(file)),
            sampler: self.sampler(),
            propagation: self.propagation(),
            queue: self.queue(),
            resource: self.resource(),
        };
        self.headers();
        for name in UNSUPPORTED {
            if self.get(name).is_some() {
                self.warn(name, "is not supported, and nothing comes of it");
            }
        }
        protocol.then_some(settings)
    }

    /// Whether an exporter is asked for: by where to, or by its name.
    fn is_on(&mut self) -> bool {
        if let Some(said) = self.get("OTEL_SDK_DISABLED") {
            if said.eq_ignore_ascii_case("true") {
                return false;
            }
            if !said.eq_ignore_ascii_case("false") {
                self.warn("OTEL_SDK_DISABLED", "must be true or false");
            }
        }
        let addressed = self.of_signal("ENDPOINT").is_some();
        let Some(exporters) = self.get("OTEL_TRACES_EXPORTER") else { return addressed };
        let (ours, others): (Vec<_>, Vec<_>) =
            exporters.split(',').map(str::trim).partition(|name| *name == "otlp");
        if others.iter().any(|name| *name != "none") {
            self.warn("OTEL_TRACES_EXPORTER", "knows otlp and none alone");
        }
        !ours.is_empty()
    }

    /// Whether somebody asked for spans who gets none.
    fn is_wanted_in_vain(&self) -> bool {
        let disabled = self.get("OTEL_SDK_DISABLED");
        !self.warnings.is_empty() && !disabled.is_some_and(|said| said.eq_ignore_ascii_case("true"))
    }

    /// Whether spans can be exported in what is wanted.
    fn has_protocol(&mut self) -> bool {
        match self.of_signal("PROTOCOL") {
            None | Some((_, "http/protobuf")) => true,
            Some((name, refused @ ("grpc" | "http/json"))) => {
                let wish = format!(
                    "no spans are exported: {refused} is not supported, say http/protobuf and the \
                     collector's port for it, usually 4318"
                );
                self.warn(name, wish);
                false
            }
            Some((name, _)) => {
                self.warn(name, "must be http/protobuf, which stands for it");
                true
            }
        }
    }

    fn endpoint(&mut self) -> Option<String> {
        let (name, url) = match self.of_signal("ENDPOINT") {
            None => return Some(format!("http://localhost:4318{PATH}")),
            Some((name @ "OTEL_EXPORTER_OTLP_ENDPOINT", base)) => {
                (name, format!("{}{PATH}", base.trim_end_matches('/')))
            }
            Some((name, whole)) => (name, whole.to_owned()),
        };
        let leads_somewhere = Uri::from_str(&url).is_ok_and(|url| {
            let origin = url.scheme_str().zip(url.authority());
            origin.is_some_and(|(scheme, at)| Origin::parse(&format!("{scheme}://{at}")).is_ok())
        });
        if !leads_somewhere {
            // What stands there may hold a password.
            self.warn(name, "no spans are exported: must be a URL of http or https, without user");
            return None;
        }
        Some(url)
    }

    fn compression(&mut self) -> Compression {
        match self.of_signal("COMPRESSION") {
            None | Some((_, "none")) => Compression::None,
            Some((_, "gzip")) => Compression::Gzip,
            Some((name, _)) => {
                self.warn(name, "must be gzip or none; nothing is compressed");
                Compression::None
            }
        }
    }

    fn sampler(&mut self) -> Sampler {
        let name = self.get("OTEL_TRACES_SAMPLER").unwrap_or("parentbased_always_on");
        let (parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (Parent::Decides, root),
            None => (Parent::Ignored, name),
        };
        let root = match root {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" => Root::Ratio(self.ratio()),
            _ => {
                let wish = "must be always_on, always_off, traceidratio, or one of them after \
                            parentbased_; parentbased_always_on stands for it";
                self.warn("OTEL_TRACES_SAMPLER", wish);
                return Sampler { root: Root::On, parent: Parent::Decides };
            }
        };
        Sampler { root, parent }
    }

    fn ratio(&mut self) -> f64 {
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(written) = self.get(ARGUMENT) else { return 1.0 };
        let ratio = written.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.unwrap_or_else(|| {
            self.warn(ARGUMENT, "must be from 0 to 1; 1 stands for it");
            1.0
        })
    }

    fn propagation(&mut self) -> Propagation {
        const PROPAGATORS: &str = "OTEL_PROPAGATORS";
        let Some(written) = self.get(PROPAGATORS) else { return Propagation::W3c };
        let names: Vec<&str> = written.split(',').map(str::trim).collect();
        // Baggage passes untouched, as any field that is not known.
        if names.iter().any(|name| !["tracecontext", "baggage", "none"].contains(name)) {
            self.warn(PROPAGATORS, "knows tracecontext, baggage and none alone");
        }
        if names.contains(&"tracecontext") { Propagation::W3c } else { Propagation::None }
    }

    fn queue(&mut self) -> Queue {
        const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
        let spans_max = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, QUEUE_MAX);
        let batch_max = self.number(BATCH, spans_max.min(512), QUEUE_MAX);
        if batch_max > spans_max {
            self.warn(BATCH, format!("must be {spans_max}, the queue's size, at most"));
        }
        let batch_max = batch_max.min(spans_max);
        Queue { spans_max, batch_max, delay: self.millis("OTEL_BSP_SCHEDULE_DELAY", 5000) }
    }

    /// What spans come from: `samekey`, unless a name is given.
    fn resource(&mut self) -> Vec<(String, String)> {
        const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let written = self.get(ATTRIBUTES).map(pairs);
        let mut pairs = match written {
            None => Vec::new(),
            Some(Some(pairs)) => pairs,
            Some(None) => {
                self.warn(ATTRIBUTES, "must be NAME=VALUE pairs with commas between; left out");
                Vec::new()
            }
        };
        let named = self.get("OTEL_SERVICE_NAME").map(str::to_owned);
        if named.is_some() {
            pairs.retain(|(name, _)| name != SERVICE);
        }
        if named.is_some() || !pairs.iter().any(|(name, _)| name == SERVICE) {
            pairs.push((SERVICE.to_owned(), named.unwrap_or_else(|| "samekey".to_owned())));
        }
        pairs
    }

    /// The exporter reads them itself, and passes over what is none: here it is told.
    fn headers(&mut self) {
        let Some((name, written)) = self.of_signal("HEADERS") else { return };
        let is_field = |(name, value): &(String, String)| {
            HeaderName::from_str(name).is_ok() && HeaderValue::from_str(value).is_ok()
        };
        if !pairs(written).is_some_and(|pairs| pairs.iter().all(is_field)) {
            self.warn(
                name,
                "must be NAME=VALUE pairs with commas between; what is none is left out",
            );
        }
    }

    fn millis_of_signal(&mut self, end: &str, usual: u64) -> Duration {
        match self.of_signal(end) {
            None => Duration::from_millis(usual),
            Some((name, _)) => self.millis(name, usual),
        }
    }

    fn millis(&mut self, name: &'static str, usual: u64) -> Duration {
        let usual = usize::try_from(usual).unwrap_or(MILLIS_MAX);
        let millis = self.number(name, usual, MILLIS_MAX);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    fn number(&mut self, name: &'static str, usual: usize, max: usize) -> usize {
        let Some(written) = self.get(name) else { return usual };
        let number = written.trim().parse().ok().filter(|number| (1..=max).contains(number));
        number.unwrap_or_else(|| {
            self.warn(name, format!("must be from 1 to {max}; {usual} stands for it"));
            usual
        })
    }

    /// A variable for traces alone, or else the one for all signals.
    fn of_signal(&self, end: &str) -> Option<(&'static str, &'a str)> {
        let find = |name: String| {
            let found = self.variables.get_key_value(name.as_str());
            found.map(|(name, value)| (*name, value.as_str()))
        };
        find(format!("OTEL_EXPORTER_OTLP_TRACES_{end}"))
            .or_else(|| find(format!("OTEL_EXPORTER_OTLP_{end}")))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.variables.get(name).map(String::as_str)
    }

    fn warn(&mut self, name: &str, wish: impl fmt::Display) {
        self.warnings.push(format!("{name}: {wish}"));
    }
}

/// `NAME=VALUE,NAME=VALUE`, percent-decoded; `None` where something in it is none.
fn pairs(written: &str) -> Option<Vec<(String, String)>> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text.trim()).decode_utf8().ok()?;
        Some(text.into_owned())
    };
    let parts = written.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let name = decoded(name).filter(|name| !name.is_empty())?;
        Some((name, decoded(value)?))
    };
    parts.map(pair).collect()
}

const PATH: &str = "/v1/traces";
const SERVICE: &str = "service.name";
/// A span takes a kilobyte or two, and ten where all is at its limit: 2 KiB of URL, 64 outcomes
/// of 24 bytes, and 512 characters of `tracestate`, which 32 entries make 4 KiB of.
const QUEUE_MAX: usize = 65_536;
/// An hour: whoever means more has mistaken the unit.
const MILLIS_MAX: usize = 3_600_000;

/// All that are read.
pub(super) const NAMES: [&str; 34] = [
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_CONFIG_FILE",
    "OTEL_EXPERIMENTAL_CONFIG_FILE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_PROPAGATORS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
];

/// Those of which nothing comes.
const UNSUPPORTED: [&str; 11] = [
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_CONFIG_FILE",
    "OTEL_EXPERIMENTAL_CONFIG_FILE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
];
