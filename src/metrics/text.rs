//! The texts that a scraper reads: Prometheus' own format 0.0.4, and `OpenMetrics` 1.0.0.
//!
//! Both have the same series with the same labels, whichever a scraper asks for.

use std::collections::BTreeSet;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// In which format metrics are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// prometheus.io, "Exposition formats", section "Text-based format".
    Text,
    /// `OpenMetrics` 1.0.0, section "Text format".
    OpenMetrics,
}

impl Format {
    /// The one that an `Accept` field likes best (RFC 9110, section 12.5.1); the old text
    /// where it says nothing.
    pub fn wanted(accept: &str) -> Self {
        let mut best = (Self::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let (mut quality, mut known) = (1.0, true);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => known = format.is_version(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            if known && quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    fn is_version(self, version: &str) -> bool {
        match self {
            Self::Text => version == "0.0.4",
            Self::OpenMetrics => version == "1.0.0",
        }
    }
}

pub(super) fn write(families: &[MetricFamily], format: Format) -> String {
    let mut text = String::new();
    let names: BTreeSet<&str> = families.iter().map(MetricFamily::name).collect();
    for family in families {
        let (name, kind) = (family.name(), family.get_field_type());
        let (shown, word) = match format {
            Format::Text => (name, word(kind)),
            Format::OpenMetrics => open_name((name, kind), &names),
        };
        let quotes = format == Format::OpenMetrics;
        text.extend(["# HELP ", shown, " ", &escaped(family.help(), quotes), "\n"]);
        text.extend(["# TYPE ", shown, " ", word, "\n"]);
        for metric in family.get_metric() {
            samples(&mut text, (name, kind), metric);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// There a counter goes by its name without `_total`, which only its sample has (section
/// "Counter"). Where a gauge has that name, two families would go by one: the counter is of
/// unknown type then.
fn open_name<'a>(
    (name, kind): (&'a str, MetricType),
    names: &BTreeSet<&str>,
) -> (&'a str, &'static str) {
    match (kind, name.strip_suffix("_total")) {
        (MetricType::COUNTER, Some(base)) if !names.contains(base) => (base, word(kind)),
        (MetricType::COUNTER, _) => (name, "unknown"),
        _ => (name, word(kind)),
    }
}

fn samples(text: &mut String, (name, kind): (&str, MetricType), metric: &Metric) {
    match kind {
        MetricType::COUNTER => sample(text, (name, ""), metric, metric.get_counter().get_value()),
        MetricType::GAUGE => sample(text, (name, ""), metric, metric.get_gauge().get_value()),
        MetricType::HISTOGRAM => buckets(text, name, metric),
        MetricType::SUMMARY | MetricType::UNTYPED => {} // we have none
    }
}

fn buckets(text: &mut String, name: &str, metric: &Metric) {
    let histogram = metric.get_histogram();
    let mut bucket = |bound: &str, count: u64| {
        text.extend([name, "_bucket"]);
        labels(text, metric.get_label(), Some(bound));
        text.extend([" ", &count.to_string(), "\n"]);
    };
    for each in histogram.get_bucket().iter().filter(|each| each.upper_bound().is_finite()) {
        // As OpenMetrics writes numbers in labels: 1.0, not 1.
        bucket(&format!("{:?}", each.upper_bound()), each.cumulative_count());
    }
    bucket("+Inf", histogram.get_sample_count());
    sample(text, (name, "_sum"), metric, histogram.get_sample_sum());
    text.extend([name, "_count"]);
    labels(text, metric.get_label(), None);
    text.extend([" ", &histogram.get_sample_count().to_string(), "\n"]);
}

fn sample(text: &mut String, (name, end): (&str, &str), metric: &Metric, value: f64) {
    text.extend([name, end]);
    labels(text, metric.get_label(), None);
    text.extend([" ", &value.to_string(), "\n"]);
}

fn labels(text: &mut String, pairs: &[LabelPair], bound: Option<&str>) {
    let own = pairs.iter().map(|pair| (pair.name(), pair.value()));
    let mut before = "{";
    for (name, value) in own.chain(bound.map(|bound| ("le", bound))) {
        text.extend([before, name, "=\"", &escaped(value, true), "\""]);
        before = ",";
    }
    if before == "," {
        text.push('}');
    }
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

fn word(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "untyped",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Asked, Metrics, Reason};

    #[test]
    fn a_scraper_gets_what_it_likes_best_and_can_read() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,\
                            application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let protobuf_first = "application/vnd.google.protobuf;proto=io.prometheus.client.\
                              MetricFamily;encoding=delimited;q=0.6,\
                              application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4";
        for (accept, wanted) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html, */*;q=0.8", Format::Text),
            (prometheus_2, Format::OpenMetrics),
            (prometheus_3, Format::OpenMetrics),
            (protobuf_first, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;version=2.0.0, text/plain;q=0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=none", Format::Text),
            ("application/openmetrics-text;q=0.4, text/plain;q=0.401", Format::Text),
            ("application/openmetrics-text;q=0.402, text/plain;q=0.401", Format::OpenMetrics),
            (";;;==,,,;q", Format::Text),
        ] {
            assert_eq!(Format::wanted(accept), wanted, "{accept:?}");
        }
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let metrics = Metrics::new();
        metrics.route("r").retry(Reason::Reset, Duration::from_millis(7), Asked::Backoff);
        let mut samples = Vec::new();
        for format in [Format::Text, Format::OpenMetrics] {
            let text = metrics.text_as(format);
            let ours = text.lines().filter(|line| line.starts_with("samekey_"));
            samples.push(ours.map(str::to_owned).collect::<Vec<_>>());
        }
        assert!(samples[0].len() > 100);
        assert_eq!(samples[0], samples[1]);
    }

    #[test]
    fn a_counter_goes_by_another_name_and_the_text_has_an_end() {
        let metrics = Metrics::new();
        metrics.route("r").retry(Reason::Reset, Duration::from_millis(7), Asked::Backoff);
        let (text, open) = (metrics.text(), metrics.text_as(Format::OpenMetrics));
        assert!(text.contains("# TYPE samekey_retries_total counter\n"));
        assert!(open.contains("# TYPE samekey_retries counter\n"));
        assert!(open.contains("# HELP samekey_retries Attempts"));
        for text in [&text, &open] {
            assert!(text.contains("samekey_retries_total{reason=\"reset\",route=\"r\"} 1\n"));
            let wait = "samekey_retry_wait_seconds";
            let of = "route=\"r\",source=\"backoff\"";
            assert!(text.contains(&format!("{wait}_bucket{{{of},le=\"0.01\"}} 1\n")), "{text}");
            assert!(text.contains(&format!("{wait}_bucket{{{of},le=\"0.005\"}} 0\n")));
            assert!(text.contains(&format!("{wait}_bucket{{{of},le=\"300.0\"}} 1\n")));
            assert!(text.contains(&format!("{wait}_bucket{{{of},le=\"+Inf\"}} 1\n")));
            assert!(text.contains(&format!("{wait}_sum{{{of}}} 0.007\n")));
            assert!(text.contains(&format!("{wait}_count{{{of}}} 1\n")));
        }
        assert!(open.ends_with("\n# EOF\n") && !text.contains("# EOF"));
    }

    #[test]
    fn no_two_families_go_by_one_name() {
        let metrics = Metrics::new();
        drop(metrics.connection("l"));
        let open = metrics.text_as(Format::OpenMetrics);
        let mut names = BTreeSet::new();
        for line in open.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().expect("a name");
            assert!(names.insert(name), "{name} twice in\n{open}");
        }
        assert!(open.contains("# TYPE samekey_connections gauge\n"));
        assert!(open.contains("# TYPE samekey_connections_total unknown\n"));
        assert!(open.contains("\nsamekey_connections_total{listener=\"l\"} 1\n"));
    }

    #[test]
    fn a_name_that_holds_quotes_breaks_nothing() {
        let metrics = Metrics::new();
        metrics.route("a \"b\" \\ c");
        for format in [Format::Text, Format::OpenMetrics] {
            let line = r#"samekey_pauses_total{route="a \"b\" \\ c"} 0"#;
            assert!(metrics.text_as(format).contains(&format!("{line}\n")));
        }
    }
}
