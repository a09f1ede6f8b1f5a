//! Where the configuration comes from: a file, the manifests in a directory, or both; and the rules of a cluster behind
//! them, while that is watched.

use super::manifests;
use crate::config::{Config, ConfigFaults};
use crate::kube::{self, Finding, Reason, Resolved, Terms};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// Most findings that one loading logs.
const MAX_LOGGED: usize = 50;

/// The configuration file, and the directory of manifests whose rules are added to it.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) file: Option<PathBuf>,
    pub(super) manifests: Option<PathBuf>,
}

/// What file and manifests say together, checked: the rules of the cluster come behind it.
#[derive(Clone, Debug)]
pub(super) struct Base {
    text: String,
    name: String,
}

impl Base {
    /// The configuration without rules of the cluster.
    pub(super) fn alone(&self) -> Result<Config, ConfigFaults> {
        Config::from_toml(&self.text, &self.name)
    }

    /// The configuration with them.
    pub(super) fn with_cluster(&self, resolved: &Resolved) -> Result<Config, ConfigFaults> {
        self.with_rules(resolved, "the cluster's rules").alone()
    }

    fn with_rules(&self, resolved: &Resolved, what: &str) -> Self {
        let text = format!("{}\n{}", self.text, resolved.to_toml());
        let name = match self.name.as_str() {
            "" => what.to_owned(),
            name => format!("{name} with {what} at its end"),
        };
        Self { text, name }
    }
}

impl Source {
    /// Reads and checks it all. What is wrong with single objects is logged, and no reason to refuse the rest; a
    /// text that is no manifest is.
    pub(super) fn read(&self) -> anyhow::Result<(Base, Config)> {
        let reading = self.gather()?;
        log(reading.findings());
        // Rules that are missing let others take their requests: as with the file, all or nothing.
        if let Some(finding) = unread(reading.findings()).next() {
            bail!("{finding}");
        }
        if let Some(FromManifests { directory, resolved, .. }) = &reading.manifests {
            tracing::info!(directory = %directory.display(), mirrors = resolved.mirror_count(), "rules taken from manifests");
        }
        Ok(reading.join()?)
    }

    /// Reads it all, checks the file, and tells nobody yet what is wrong with manifests.
    pub(super) fn gather(&self) -> anyhow::Result<Reading> {
        let text = match &self.file {
            Some(file) => read(file)?,
            None => String::new(),
        };
        let name = self.file.as_deref().map(|file| file.display().to_string()).unwrap_or_default();
        let base = Base { text, name };
        let config = base.alone()?;
        let manifests = self.manifests.as_ref().map(|directory| FromManifests::read(directory, &config));
        let manifests = manifests.transpose()?;
        Ok(Reading { base, config, manifests })
    }

    /// The configuration, without the rules of a cluster.
    pub(super) fn load(&self) -> anyhow::Result<Config> {
        Ok(self.read()?.1)
    }

    /// What changes are looked for in.
    pub(super) fn describe(&self) -> String {
        let parts = [&self.file, &self.manifests];
        let parts: Vec<_> = parts.into_iter().flatten().map(|path| path.display().to_string()).collect();
        parts.join(" and ")
    }
}

/// A right file, and what the manifests make by its settings.
#[derive(Debug)]
pub(super) struct Reading {
    base: Base,
    config: Config,
    manifests: Option<FromManifests>,
}

impl Reading {
    /// Everything that was found wrong with manifests.
    pub(super) fn findings(&self) -> &[Finding] {
        self.manifests.as_ref().map_or(&[], |manifests| &manifests.findings)
    }

    /// File and manifests as one configuration, for commands that have shown all findings.
    ///
    /// # Errors
    /// A text is no manifest, or both together are wrong ([`ConfigFaults`]).
    pub(super) fn checked(self) -> anyhow::Result<Config> {
        if let Some(manifests) = &self.manifests {
            manifests.refuse_unread()?;
        }
        Ok(self.join()?.1)
    }

    fn join(self) -> Result<(Base, Config), ConfigFaults> {
        let Some(FromManifests { directory, resolved, .. }) = self.manifests else {
            return Ok((self.base, self.config));
        };
        let whole = self.base.with_rules(&resolved, &format!("the manifests in {}", directory.display()));
        let config = whole.alone()?;
        Ok((whole, config))
    }
}

/// The rules in the manifests of a directory, and everything that was found wrong with them.
#[derive(Debug)]
pub(super) struct FromManifests {
    directory: PathBuf,
    pub(super) resolved: Resolved,
    pub(super) findings: Vec<Finding>,
}

impl FromManifests {
    /// Reads them, by the settings of `config`.
    pub(super) fn read(directory: &Path, config: &Config) -> anyhow::Result<Self> {
        let (objects, mut findings) = manifests::read(directory)?;
        let resolved = kube::resolve(&objects, &Terms::of(config));
        findings.extend_from_slice(resolved.findings());
        Ok(Self { directory: directory.to_owned(), resolved, findings })
    }

    /// For commands that have shown all findings.
    ///
    /// # Errors
    /// A text is no manifest, so that nobody knows which rules are missing.
    pub(super) fn refuse_unread(&self) -> anyhow::Result<()> {
        let directory = self.directory.display();
        match unread(&self.findings).count() {
            0 => Ok(()),
            1 => bail!("a file in {directory} is no manifest: see InvalidManifest"),
            count => bail!("{count} files in {directory} are no manifests: see InvalidManifest"),
        }
    }
}

fn unread(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.reason == Reason::InvalidManifest)
}

fn log(findings: &[Finding]) {
    for finding in findings.iter().take(MAX_LOGGED) {
        tracing::warn!(reason = finding.reason.label(), "{finding}");
    }
    let more = findings.len().saturating_sub(MAX_LOGGED);
    if more > 0 {
        tracing::warn!(more, "there are more findings; `mirror-daemon import` shows all");
    }
}

pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("configuration {} can't be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FIXTURE: &str = include_str!("../../../tests/fixtures/k8sgateway-shadowing.yaml");

    #[test]
    fn rules_of_manifests_are_added_to_those_of_the_file() {
        let root = tempfile::tempdir().unwrap();
        let (file, directory) = (root.path().join("mirror.toml"), root.path().join("manifests"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("guide.yaml"), FIXTURE).unwrap();
        fs::write(&file, "[capture]\ninterfaces = [\"eth0\"]\nports = [8080]\n[[shadow]]\nname = \"own\"\nurl = \"http://own:1\"\n[[route]]\n[[route.rule]]\nmirror = [{ shadow = \"own\" }]").unwrap();
        let both = Source { file: Some(file.clone()), manifests: Some(directory.clone()) };
        let config = both.load().unwrap();
        assert_eq!(config.capture.points.len(), 1);
        let names: Vec<&str> = config.shadows.iter().map(|shadow| shadow.name.as_str()).collect();
        assert_eq!(names, ["own", "shadow.httpbin.8000"]);
        assert_eq!(config.rules.route_count(), 2);

        let alone = Source { file: None, manifests: Some(directory.clone()) };
        assert_eq!(alone.load().unwrap().rules.route_count(), 1);

        fs::write(directory.join("half.yaml"), "a: [").unwrap();
        let refused = both.load().unwrap_err().to_string();
        assert!(refused.contains("half.yaml: InvalidManifest"), "{refused}");
        fs::remove_file(directory.join("half.yaml")).unwrap();

        fs::write(&file, "[capture]\nports = [0]").unwrap();
        let faults = both.load().unwrap_err().to_string();
        assert!(faults.contains("mirror.toml:2: capture.ports[0]"), "{faults}");
    }

    #[test]
    fn settings_of_the_file_hold_for_its_manifests() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("mirror.toml");
        fs::write(root.path().join("guide.yaml"), FIXTURE).unwrap();
        fs::write(&file, "[kubernetes]\nroute_selector = \"mirror=yes\"\n").unwrap();
        let source = Source { file: Some(file.clone()), manifests: Some(root.path().to_owned()) };
        assert_eq!(source.load().unwrap().shadows.len(), 0);
        fs::write(&file, "[kubernetes]\ncluster_domain = \"corp.example\"\n").unwrap();
        let config = source.load().unwrap();
        assert_eq!(config.shadows[0].rewrite.own_authority, "httpbin.shadow.svc.corp.example:8000");
    }
}
