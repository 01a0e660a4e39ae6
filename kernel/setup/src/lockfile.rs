//! Which packages of Cargo.lock a package needs, so that a key changes only when something it is made from does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

/// The packages of a lock file, as cargo writes it: `[[package]]` blocks of `name`, `version`, `source`, `dependencies`.
#[derive(Debug, Clone)]
pub struct LockFile {
    packages: Vec<Package>,
}

#[derive(Debug, Clone, Default)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
    dependencies: Vec<String>,
}

impl LockFile {
    /// Reads the text of a Cargo.lock.
    pub fn parse(text: &str) -> Result<LockFile> {
        let mut packages: Vec<Package> = Vec::new();
        let mut in_dependencies = false;
        for line in text.lines() {
            let line = line.trim();
            if line == "[[package]]" {
                packages.push(Package::default());
                continue;
            }
            let Some(package) = packages.last_mut() else { continue };
            match line.split_once(" = ") {
                Some(("name", value)) => package.name = unquoted(value),
                Some(("version", value)) => package.version = unquoted(value),
                Some(("source", value)) => package.source = Some(unquoted(value)),
                Some(("checksum", value)) => package.checksum = Some(unquoted(value)),
                Some(("dependencies", _)) => in_dependencies = true,
                _ if line == "]" => in_dependencies = false,
                _ if in_dependencies => {
                    package.dependencies.push(unquoted(line.trim_end_matches(',')))
                }
                _ => {}
            }
        }
        if packages.is_empty() {
            bail!("Cargo.lock names no package");
        }
        Ok(LockFile { packages })
    }

    /// All that the packages named in `roots` need, themselves included: one line each with name, version and
    /// checksum, sorted. Development dependencies of packages from a registry are not in a lock file.
    pub fn closure(&self, roots: &[&str]) -> Result<String> {
        let mut open: Vec<&Package> = Vec::new();
        for root in roots {
            open.push(
                self.find(root).with_context(|| {
                    format!("Cargo.lock lacks {root}; run `cargo metadata` once")
                })?,
            );
        }
        let mut found = BTreeMap::new();
        while let Some(package) = open.pop() {
            let place = (package.name.clone(), package.version.clone());
            if found.insert(place, package.checksum.clone().unwrap_or_default()).is_none() {
                open.extend(package.dependencies.iter().filter_map(|name| self.find(name)));
            }
        }
        let mut text = String::new();
        for ((name, version), checksum) in found {
            writeln!(text, "{name} {version} {checksum}")?;
        }
        Ok(text)
    }

    /// Packages from a registry that stand here with a version that `other` lacks.
    pub fn not_in(&self, other: &LockFile) -> Vec<String> {
        let known: BTreeSet<_> =
            other.packages.iter().map(|package| (&package.name, &package.version)).collect();
        self.packages
            .iter()
            .filter(|package| {
                package.source.is_some() && !known.contains(&(&package.name, &package.version))
            })
            .map(|package| format!("{} {}", package.name, package.version))
            .collect()
    }

    /// `name`, or `name version` where the lock file holds several versions.
    fn find(&self, wanted: &str) -> Option<&Package> {
        let mut words = wanted.split(' ');
        let (name, version) = (words.next()?, words.next());
        self.packages.iter().find(|package| {
            package.name == name && version.is_none_or(|version| package.version == version)
        })
    }
}

fn unquoted(value: &str) -> String {
    value.trim_matches('"').to_owned()
}

/// The names on the left of `=` in the `[dependencies]` section of a Cargo.toml, and the text of that section.
pub fn dependencies(manifest: &str) -> Result<(Vec<String>, String)> {
    let mut names = Vec::new();
    let mut text = String::from("[dependencies]\n");
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
            if line.starts_with("[dependencies.")
                || line.starts_with("[features")
                || line.starts_with("[target.")
            {
                bail!(
                    "Cargo.toml: write {line} as one line under [dependencies]: set-up reads only that section"
                );
            }
        } else if inside {
            if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                names.push(name.trim().to_owned());
            }
            text.push_str(line);
            text.push('\n');
        }
    }
    if names.is_empty() {
        bail!("Cargo.toml has no [dependencies]");
    }
    Ok((names, text))
}
