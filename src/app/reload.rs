//! Loads the config anew: swaps whole, or changes nothing and says why.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::app::{Core, inbox};
use crate::config::{Config, Overridden, Source};
use crate::proxy::Router;

/// Loads the config anew; a clone does the same.
#[derive(Clone)]
pub struct Reloader(pub(super) Arc<Core>);

impl Reloader {
    /// Swaps whole or changes nothing.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, a line a fault.
    pub fn reload(&self) -> Result<(), String> {
        now(&self.0)
    }
}

/// Loads the config anew; one at a time, whoever asks for it.
///
/// # Errors
///
/// What is wrong with it, a line a fault; nothing has changed then.
pub(super) fn now(core: &Core) -> Result<(), String> {
    // Whoever waits for it reads the file after this one did: what is newest stays.
    let _alone = core.reloading.lock().unwrap_or_else(PoisonError::into_inner);
    let before = core.config.load_full();
    if let Source::File(path) = &before.source {
        // Noted first: what is written from here on differs, and is loaded after this. So does
        // whatever comes in place of a file that cannot be read.
        let tried = fs::read(path).map_or(UNREAD, |text| blake3::hash(&text));
        core.tried.store(Arc::new(tried));
    }
    let loaded = (core.load)().and_then(|config| config.in_place_of(&before));
    let applied = loaded.map(|config| {
        let source = config.source.to_string();
        apply(core, &before, config);
        source
    });
    // Counted once it is in force, so that whoever sees the count meets the new routes.
    core.metrics.config_reloaded(&applied);
    match applied {
        Ok(source) => {
            tracing::info!(config = source, "the config was loaded anew");
            Ok(())
        }
        Err(faults) => {
            tracing::error!(%faults, "the config was not loaded: the one before stays in force");
            Err(faults.to_string())
        }
    }
}

fn apply(core: &Core, before: &Config, config: Config) {
    warn_of_restart(&core.first, &config);
    warn_of_overridden(&config, &before.overridden);
    let lasting = |route: &_| core.kept.of(route, &core.metrics);
    let router =
        Router::new(config.routes.clone(), lasting, &core.commons, &core.pool, &core.metrics);
    core.proxy.reroute(router);
    inbox::retire(&core.kept.trays, &config);
    core.proxy.follow_left();
    core.house.rules.store(Arc::new(config.intercept.clone()));
    core.house.dialer.reconfigure(config.egress.clone(), &config.upstream);
    core.pool.reconfigure(config.upstream.idle_timeout, config.upstream.idle_per_host);
    (core.set_level)(&config.log.level);
    core.metrics.config_loaded(SystemTime::now());
    core.config.store(Arc::new(config));
}

/// Says which keys take a restart, as long as they differ from those it was started with:
/// sockets, files and identities stay as they are.
fn warn_of_restart(before: &Config, after: &Config) {
    let changed = [
        ("listeners", before.listeners != after.listeners),
        ("admin", before.admin != after.admin),
        ("state", before.state != after.state),
        ("intercept.ca", before.intercept.ca != after.intercept.ca),
        ("intercept.leaf_cache", before.intercept.leaf_cache != after.intercept.leaf_cache),
        ("log.format", before.log.format != after.log.format),
        ("upstream.roots", before.upstream.extra_roots != after.upstream.extra_roots),
    ];
    for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
        tracing::warn!(key, "this change takes a restart");
    }
}

/// Says which of the file's words are not in force, but for those that are known already.
pub(super) fn warn_of_overridden(config: &Config, known: &[Overridden]) {
    for told in config.overridden.iter().filter(|told| !known.contains(told)) {
        let Overridden { variable, key } = told;
        tracing::warn!(key, variable, file = %config.source, "a variable overrides the config file");
    }
}

/// Watches the config file's folder: an editor's rename and a `ConfigMap`'s swapped
/// symlink show there, and not at the file itself.
pub(super) fn watch(core: &Arc<Core>) {
    let Source::File(path) = core.config.load().source.clone() else { return };
    let path = std::path::absolute(&path).unwrap_or(path);
    let (tell, told) = mpsc::channel(1);
    let folder = path.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let notice = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel says the same already.
            tell.try_send(()).unwrap_or_default();
        }
    };
    let watcher = notify::recommended_watcher(notice).and_then(|mut watcher| {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(%error, "the config file cannot be watched; it is looked at now and then");
    }
    core.background.spawn(follow(core.clone(), path, told, watcher.ok()));
}

async fn follow(
    core: Arc<Core>,
    path: PathBuf,
    mut changed: mpsc::Receiver<()>,
    _watcher: Option<notify::RecommendedWatcher>,
) {
    // The first look is at once: a change since the start was told to nobody.
    let mut patience = Duration::ZERO;
    loop {
        // The look now and then is for file systems that tell nothing.
        if let Ok(Some(())) = timeout(patience, changed.recv()).await {
            sleep(SETTLE).await; // a writer writes more than once
            while changed.try_recv().is_ok() {}
        }
        patience = LOOK_EVERY;
        // A file that is not there is one that is being replaced.
        let Ok(text) = tokio::fs::read(&path).await else { continue };
        if blake3::hash(&text) != **core.tried.load() {
            drop(now(&core)); // it has logged what was wrong
        }
    }
}

/// Of no text.
const UNREAD: blake3::Hash = blake3::Hash::from_bytes([0; 32]);
const LOOK_EVERY: Duration = Duration::from_secs(15);
const SETTLE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::app::{App, Home};
    use crate::config::{self, Environment};

    /// What is called on the way of a reload notes whether another one could come between.
    #[derive(Default)]
    struct Between {
        reloader: OnceLock<Reloader>,
        looks: AtomicUsize,
        let_in: AtomicUsize,
    }

    impl Between {
        fn look(&self) {
            if let Some(Reloader(core)) = self.reloader.get() {
                self.looks.fetch_add(1, Ordering::Relaxed);
                let another = usize::from(core.reloading.try_lock().is_ok());
                self.let_in.fetch_add(another, Ordering::Relaxed);
            }
        }
    }

    #[tokio::test]
    async fn nobody_reads_or_applies_a_config_while_another_reload_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("state");
        let text = format!(
            "{{listeners: [{{address: \"127.0.0.1:0\"}}], admin: {{address: \"127.0.0.1:0\"}}, \
             state: {{dir: {}, journal: memory}}}}",
            dir.display()
        );
        let read = move || config::parse(&text, Path::new("a.yaml"), &Environment::default());
        let between = Arc::new(Between::default());
        let (at_load, at_level) = (between.clone(), between.clone());
        let config = read().expect("it is well");
        let load = move || {
            at_load.look();
            read()
        };
        let home = Home::open(&dir).expect("a directory");
        let app = App::build(config, Arc::new(load), home, Arc::new(move |_level| at_level.look()));
        let app = app.await.expect("it is built");
        drop(between.reloader.set(app.reloader()));
        app.reloader().reload().expect("it is well");
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        assert_eq!((count(&between.looks), count(&between.let_in)), (2, 0));
        app.reloader().reload().expect("it is let go");
    }
}
