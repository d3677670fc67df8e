//! Links, anchors, and paths of files.

use crate::markdown::{Document, code, document, documents, tree};
use crate::none;
use std::path::{Component, Path, PathBuf};

#[test]
fn links_and_anchors_lead_somewhere() {
    let mut mistakes = vec![];
    for document in documents() {
        for (line, target) in links(&document) {
            if let Some(why) = broken(&document, &target) {
                mistakes.push(format!("{}: {target} {why}", document.at(line)));
            }
        }
    }
    none(&mistakes);
}

#[test]
fn files_that_are_named_are_there() {
    let tops = [
        "wire/",
        "policy/",
        "config/",
        "pager/",
        "shim/",
        "memserver/",
        "rdma/",
        "verbs/",
        "cli/",
        "benches/",
        "tests/",
        "docs/",
        "examples/",
        "scripts/",
        ".ci/",
    ];
    let mut mistakes = vec![];
    for document in documents() {
        for (line, text) in document.prose() {
            for path in code(text) {
                let is_path = tops.iter().any(|top| path.starts_with(top));
                let plain = path.split_whitespace().next().unwrap_or_default();
                if is_path && !tree().join(plain).exists() {
                    mistakes.push(format!("{}: no {plain}", document.at(line)));
                }
            }
        }
    }
    none(&mistakes);
}

#[test]
fn every_document_can_be_reached_from_the_readme() {
    let mut reached = vec![PathBuf::from("README.md")];
    let mut next = 0;
    while let Some(path) = reached.get(next).cloned() {
        next += 1;
        if path.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let from = document(&path);
        for (_, target) in links(&from) {
            let (file, _) = split(&target);
            let found = resolve(&from, file);
            if !target.contains("://") && tree().join(&found).is_file() && !reached.contains(&found)
            {
                reached.push(found);
            }
        }
    }
    let alone = documents()
        .into_iter()
        .filter(|d| !reached.contains(&d.path));
    let alone: Vec<String> = alone
        .map(|d| format!("{}: no link leads here", d.path.display()))
        .collect();
    none(&alone);
}

/// The targets of links outside of code, with their lines.
fn links(document: &Document) -> Vec<(usize, String)> {
    let mut found = vec![];
    for (line, text) in document.prose() {
        let mut rest = text;
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let end = rest.find(')').unwrap_or(rest.len());
            found.push((line, rest[..end].to_owned()));
        }
    }
    found
}

fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (target, None),
    }
}

/// The path from the tree of what a link in `document` names.
fn resolve(document: &Document, file: &str) -> PathBuf {
    if file.is_empty() {
        return document.path.clone();
    }
    let folder = document.path.parent().unwrap_or(Path::new(""));
    let mut path = PathBuf::new();
    for part in folder.join(file).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}

fn broken(from: &Document, target: &str) -> Option<&'static str> {
    if target.starts_with("https://") {
        return None;
    }
    let (file, anchor) = split(target);
    let path = resolve(from, file);
    if !tree().join(&path).exists() {
        return Some("is not there");
    }
    let anchor = anchor?;
    let known = document(&path)
        .prose()
        .into_iter()
        .filter(|(_, line)| line.starts_with('#'))
        .any(|(_, line)| slug(line) == anchor);
    (!known).then_some("has no such heading")
}

/// The anchor of a heading, as GitHub makes it.
fn slug(heading: &str) -> String {
    let title = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn anchors_are_those_of_github() {
    assert_eq!(
        slug("## What `tmem run` promises"),
        "what-tmem-run-promises"
    );
    assert_eq!(
        slug("# Beside the kernel's swap"),
        "beside-the-kernels-swap"
    );
}
