//! Real projects: the next release over the one before.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use super::{Field, Row, ours};
use crate::{
    compare::verify,
    tree::{
        peers::{RSYNC_Z, count, git, replace},
        report::{Floor, Measured},
        sample::{Series, traffic},
        site::Site,
    },
};

/// Two releases of a project that follow each other.
#[derive(Debug)]
struct Pair {
    registry: Registry,
    name: &'static str,
    old: &'static str,
    new: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registry {
    /// A source distribution of PyPI.
    Sdist,
    /// What PyPI has for Linux on x86-64.
    Wheel,
    Npm,
    Crates,
}

/// What most of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sources,
    Generated,
    Binaries,
}

const PAIRS: [Pair; 8] = [
    Pair::new(
        Registry::Sdist,
        "requests",
        ["2.32.2", "2.32.3"],
        Kind::Sources,
    ),
    Pair::new(Registry::Sdist, "django", ["5.1.1", "5.1.2"], Kind::Sources),
    Pair::new(
        Registry::Crates,
        "tokio",
        ["1.39.2", "1.39.3"],
        Kind::Sources,
    ),
    Pair::new(Registry::Npm, "eslint", ["9.9.0", "9.9.1"], Kind::Sources),
    Pair::new(Registry::Npm, "vue", ["3.4.30", "3.4.31"], Kind::Generated),
    Pair::new(
        Registry::Npm,
        "typescript",
        ["5.5.3", "5.5.4"],
        Kind::Generated,
    ),
    Pair::new(
        Registry::Wheel,
        "cryptography",
        ["43.0.0", "43.0.1"],
        Kind::Binaries,
    ),
    Pair::new(Registry::Wheel, "numpy", ["2.1.1", "2.1.2"], Kind::Binaries),
];

impl Pair {
    const fn new(
        registry: Registry,
        name: &'static str,
        [old, new]: [&'static str; 2],
        kind: Kind,
    ) -> Self {
        Self {
            registry,
            name,
            old,
            new,
            kind,
        }
    }
}

pub(super) fn measure(field: &Field<'_>) -> anyhow::Result<Vec<Measured>> {
    let mut all = Vec::new();
    for pair in PAIRS.iter().take(field.sizes.releases) {
        let (old, new) = (field.fetch(pair, pair.old)?, field.fetch(pair, pair.new)?);
        if let Some((old, new)) = old.zip(new) {
            all.push(measure_pair(field, pair, &old, &new)?);
        }
    }
    Ok(all)
}

/// The older release of a project among these, where it can be had.
pub(super) fn older(field: &Field<'_>, name: &str) -> anyhow::Result<Option<PathBuf>> {
    let mut pairs = PAIRS.iter().take(field.sizes.releases);
    let pair = pairs.find(|pair| pair.name == name);
    pair.map_or(Ok(None), |pair| field.fetch(pair, pair.old))
}

impl Field<'_> {
    /// The directory with a release. That it can't be had is said, and is no error: there may be no
    /// network.
    fn fetch(&self, pair: &Pair, version: &str) -> anyhow::Result<Option<PathBuf>> {
        self.show(&format!("releases: fetching {} {version}", pair.name));
        match pair.fetch(version, self.site) {
            Ok(release) => Ok(Some(release)),
            Err(error) => {
                self.site.interruption.check()?;
                self.progress.suspend(|| {
                    eprintln!(
                        "NOT MEASURED: {} {version} can't be had: {error:#}",
                        pair.name
                    );
                });
                Ok(None)
            }
        }
    }
}

fn measure_pair(
    field: &Field<'_>,
    pair: &Pair,
    old: &Path,
    new: &Path,
) -> anyhow::Result<Measured> {
    let site = field.site;
    field.show(&format!("releases: {}", pair.name));
    let source = site.dir.join("releases");
    fs::create_dir_all(&source)?;
    git(site, &source, &["init", "--quiet"])?;
    let deployment = site.deploy("releases")?;
    let (rsync, target) = (field.rsync()?, field.target("releases"));
    // Of a file of the same length, rsync sees no change within a second.
    replace(site, &source, old, &["--times"])?;
    deployment.push(&source)?;
    rsync.push(&source, &target, &["-z"])?;

    deployment.forget()?;
    // Files that are the same in both keep their times, as they do in a checkout.
    replace(site, &source, new, &[])?;
    let pushed = deployment.push(&source)?;
    verify(&source, &deployment.root)?;
    let synced = rsync.push(&source, &target, &["-z"])?;
    verify(&source, &target)?;
    deployment.remove()?;
    let files = count(&source)?;
    fs::remove_dir_all(&target)?;
    fs::remove_dir_all(&source)?;

    let (ours, theirs) = (ours().with(pushed), Series::new(RSYNC_Z).with(synced));
    let (kind, at_most) = match pair.kind {
        Kind::Sources => ("sources", 0.8),
        Kind::Generated => ("generated code", 0.8),
        Kind::Binaries => ("binaries", 1.0),
    };
    let ratio = ours.ratio(&theirs, traffic);
    Ok(Measured {
        row: format!("{}-{}", Row::Releases.name(), pair.name),
        what: format!(
            "{} {} over {}, {kind}, the developer's memory is removed",
            pair.name, pair.new, pair.old
        ),
        files,
        floors: vec![Floor::ratio(
            "bytes both ways, times rsync -z",
            ratio,
            at_most,
        )],
        series: vec![ours, theirs],
        notes: Vec::new(),
    })
}

impl Pair {
    /// The directory with the content of a release, which is kept for later runs.
    fn fetch(&self, version: &str, site: &Site) -> anyhow::Result<PathBuf> {
        let cache = env::current_exe()?.with_file_name("patchwire-bench-releases");
        let kept = cache.join(format!("{}-{version}", self.name));
        if kept.exists() {
            return Ok(kept);
        }
        let fresh = site.dir.join("fetched");
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir_all(fresh.join("content"))?;
        fs::create_dir_all(&cache)?;
        let content = match self.registry {
            Registry::Crates => self.vendor(version, &fresh, site)?,
            Registry::Sdist | Registry::Wheel | Registry::Npm => {
                let archive = self.download(version, &fresh, site)?;
                let content = fresh.join("content");
                let mut unpack = match self.registry {
                    Registry::Wheel => {
                        let mut python = Command::new("python3");
                        python
                            .args(["-m", "zipfile", "-e"])
                            .arg(&archive)
                            .arg(&content);
                        python
                    }
                    Registry::Sdist | Registry::Npm | Registry::Crates => {
                        let mut tar = Command::new("tar");
                        tar.args(["--strip-components=1", "--no-same-owner", "-xzf"]);
                        tar.arg(&archive).arg("-C").arg(&content);
                        tar
                    }
                };
                unpack.current_dir(&fresh);
                site.run(unpack, &fresh.join("out"))?;
                content
            }
        };
        fs::rename(content, &kept)?;
        Ok(kept)
    }

    /// Has the registry's own client download an archive.
    fn download(&self, version: &str, into: &Path, site: &Site) -> anyhow::Result<PathBuf> {
        let archives = into.join("archives");
        fs::create_dir(&archives)?;
        let command = match self.registry {
            Registry::Npm => {
                let mut npm = Command::new("npm");
                npm.args(["pack", "--silent", "--pack-destination"]);
                npm.arg(&archives).arg(format!("{}@{version}", self.name));
                npm
            }
            Registry::Sdist | Registry::Wheel | Registry::Crates => {
                let mut pip = Command::new("pip");
                pip.args(["download", "--quiet", "--no-deps", "--dest"])
                    .arg(&archives);
                if self.registry == Registry::Sdist {
                    pip.arg("--no-binary=:all:");
                } else {
                    pip.args(["--only-binary=:all:", "--python-version=3.12"]);
                    pip.arg("--platform=manylinux2014_x86_64");
                }
                pip.arg(format!("{}=={version}", self.name));
                pip
            }
        };
        site.run(command, &into.join("out"))?;
        let archive = fs::read_dir(&archives)?.next();
        Ok(archive.context("nothing was downloaded")??.path())
    }

    /// Has cargo lay down a crate and what it needs, of which the crate alone is taken.
    fn vendor(&self, version: &str, into: &Path, site: &Site) -> anyhow::Result<PathBuf> {
        let manifest = format!(
            "[package]\nname = \"bench\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n\
             [lib]\npath = \"lib.rs\"\n[dependencies]\n{} = {{ version = \"={version}\", \
             default-features = false }}\n",
            self.name
        );
        fs::write(into.join("Cargo.toml"), manifest)?;
        fs::write(into.join("lib.rs"), "")?;
        let mut cargo = Command::new("cargo");
        cargo
            .args(["vendor", "--quiet", "vendored"])
            .current_dir(into);
        site.run(cargo, &into.join("out"))?;
        let content = into.join("vendored").join(self.name);
        ensure!(content.exists(), "cargo laid down no {}", self.name);
        Ok(content)
    }
}
