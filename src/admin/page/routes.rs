//! The routes in force: what each does, and where that was written.

use maud::{Markup, html};
use serde_json::Value;

use super::{plain, text};

pub(super) fn routes(routes: &Value) -> Markup {
    let all = routes.get("routes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_own = |route: &&Value| route.get("own").and_then(Value::as_bool).unwrap_or_default();
    let (own, shipped): (Vec<_>, Vec<_>) = all.iter().partition(is_own);
    html! {
        section aria-labelledby="routes" {
            h2 #routes { "Routes" }
            @if own.is_empty() { p.quiet { "No route of the config's own." } } @else {
                (table_of("Own routes, in the order in which they match.", &own))
            }
            @if !shipped.is_empty() {
                details {
                    summary { (shipped.len()) @if shipped.len() == 1 { " route" } @else { " routes" }
                        " of presets, behind the own ones" }
                    (table_of("Routes of presets.", &shipped))
                }
            }
        }
    }
}

fn table_of(caption: &str, routes: &[&Value]) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr {
                    @for name in ["Name", "Hosts", "Kind", "Mode", "De-duplicates", "Attempts"] {
                        th scope="col" { (name) }
                    }
                    th.number scope="col" { "Budget" }
                    th scope="col" { "Preset" }
                    th scope="col" { "Written" }
                } }
                tbody { @for route in routes { (route_row(route)) } }
            }
        }
    }
}

fn route_row(route: &Value) -> Markup {
    let hosts = route.get("hosts").and_then(Value::as_array);
    let hosts: Vec<String> = hosts.into_iter().flatten().map(plain).collect();
    let kind = route.get("kind").and_then(Value::as_str).unwrap_or("by method");
    let dedupes = match route.get("upstream_dedupes").and_then(Value::as_bool) {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    };
    let within = route.get("deadline_seconds").and_then(Value::as_f64).unwrap_or_default();
    html! {
        tr {
            th scope="row" { (text(route, "name")) }
            td { (hosts.join(", ")) }
            td { (kind) }
            td { (text(route, "mode")) }
            td { (dedupes) }
            td { (text(route, "attempts")) " in " (within) " s" }
            td.number { (text(route, "budget_tokens")) }
            td { (text(route, "preset")) }
            td.id { (text(route, "written")) }
        }
    }
}
