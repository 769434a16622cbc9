//! What about a Redis is worth a warning before anybody relies on it.

use std::collections::HashMap;

use redis::Value;

use super::{Redis, Unavailable};

impl Redis {
    /// What an operator should know about this Redis; empty where it is set up to keep
    /// what it is given.
    pub async fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match self.settings().await {
            Ok(settings) => judge(&settings, &mut warnings),
            Err(error) => warnings.push(format!(
                "redis does not let its settings be read ({error}): see that maxmemory-policy is \
                 noeviction and that it keeps its data over a restart"
            )),
        }
        if self.0.wait_replicas > 0
            && let Some(connected) = self.replicas().await
            && connected < self.0.wait_replicas
        {
            warnings.push(format!(
                "redis has {connected} replicas and wait_replicas is {}: nothing can be reserved",
                self.0.wait_replicas
            ));
        }
        warnings
    }

    async fn settings(&self) -> Result<HashMap<String, String>, Unavailable> {
        let mut settings = HashMap::new();
        for name in ["maxmemory", "maxmemory-policy", "appendonly", "save"] {
            let mut command = redis::cmd("CONFIG");
            command.arg("GET").arg(name);
            let value = self.0.links.command(&command).await?;
            let found: Option<HashMap<String, String>> = redis::from_redis_value(value).ok();
            settings.extend(found.unwrap_or_default());
        }
        Ok(settings)
    }

    /// How many replicas are connected, where that is to be had.
    async fn replicas(&self) -> Option<u32> {
        let mut command = redis::cmd("INFO");
        command.arg("replication");
        let value: Value = self.0.links.command(&command).await.ok()?;
        let text: String = redis::from_redis_value(value).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("connected_slaves:"))?;
        line.trim().parse().ok()
    }
}

fn judge(settings: &HashMap<String, String>, warnings: &mut Vec<String>) {
    let is = |name: &str, value: &str| settings.get(name).is_some_and(|found| found == value);
    let policy = settings.get("maxmemory-policy").map_or("noeviction", String::as_str);
    if settings.contains_key("maxmemory") && !is("maxmemory", "0") && policy != "noeviction" {
        warnings.push(format!(
            "redis may evict keys when its memory is full (maxmemory-policy is {policy}): a claim \
             that is evicted can be sent twice; set it to noeviction"
        ));
    }
    if is("appendonly", "no") && is("save", "") {
        warnings.push(
            "redis keeps nothing over a restart (appendonly is no and save is empty): what only \
             it knows is lost with it"
                .to_owned(),
        );
    }
}
