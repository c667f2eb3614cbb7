//! `tree`: which packages bring in which.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::answer;
use crate::arguments::TreeArguments;
use crate::diagnostics::Failure;
use crate::explain::locked::{of_image, read_lock};
use crate::explain::packages::{Packages, Root};
use crate::wiring::{Wiring, image_path, read_image};

/// Prints the tree.
pub fn run(wiring: &Wiring, arguments: &TreeArguments) -> Result<(), Failure> {
    let image = read_image(&image_path(&arguments.image.path()))?;
    let settings = wiring.settings(&wiring.flags(), Some(&image))?;
    let lock = read_lock(&image.lock_path)?;
    let (_, locked) = of_image(&lock, &image, arguments.platform.as_deref())?;
    let store = wiring.existing_store(&settings)?;
    let packages = Packages::read(&store, &lock, locked, &image)?;
    if arguments.json {
        return answer::json(&object(&packages));
    }
    let mut drawing = Drawing::new(&packages, arguments);
    match &arguments.invert {
        Some(name) if !packages.nodes.contains_key(name) => {
            return Err(Failure::usage(format!("package {name} is not in image {}", image.name)));
        }
        Some(name) => drawing.draw(name, "", "", 0),
        None => {
            drawing.line(image.name.as_str(), "", "");
            let roots: Vec<&String> = packages.roots.keys().collect();
            drawing.children(&roots, "", 1);
        }
    }
    answer::print(&drawing.text)
}

fn object(packages: &Packages) -> Value {
    let nodes: Vec<Value> = packages
        .nodes
        .values()
        .map(|node| {
            let needs = node.needs.iter().map(|need| {
                json!({ "package": need.target, "field": need.field, "relation": need.relation })
            });
            json!({
                "name": node.key.name.as_str(),
                "version": node.key.version.as_str(),
                "architecture": node.key.architecture.as_str(),
                "asked_for": matches!(
                    packages.roots.get(node.key.name.as_str()), Some(Root::Asked(_))),
                "needs": needs.collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "packages": nodes })
}

/// Text in the making. A package's own needs are drawn where it comes first, elsewhere `(*)`.
struct Drawing<'a> {
    packages: &'a Packages,
    inverted: bool,
    depth: usize,
    drawn: BTreeSet<String>,
    text: String,
}

impl<'a> Drawing<'a> {
    fn new(packages: &'a Packages, arguments: &TreeArguments) -> Self {
        Self {
            packages,
            inverted: arguments.invert.is_some(),
            depth: arguments.depth.unwrap_or(usize::MAX),
            drawn: BTreeSet::new(),
            text: String::new(),
        }
    }

    fn line(&mut self, text: &str, branch: &str, mark: &str) {
        self.text.push_str(&format!("{branch}{text}{mark}\n"));
    }

    fn draw(&mut self, name: &str, branch: &str, indent: &str, depth: usize) {
        let Some(node) = self.packages.nodes.get(name) else { return };
        let text = format!("{} {}", node.key.name, node.key.version);
        let next: Vec<&'a String> = match self.inverted {
            true => self
                .packages
                .dependants(name)
                .iter()
                .filter_map(|(node, _)| self.packages.nodes.get_key_value(node.key.name.as_str()))
                .map(|(name, _)| name)
                .collect(),
            false => self.packages.nodes[name].needs.iter().map(|need| &need.target).collect(),
        };
        let is_new = self.drawn.insert(name.to_owned());
        self.line(&text, branch, if is_new || next.is_empty() { "" } else { " (*)" });
        if is_new && depth < self.depth {
            self.children(&next, indent, depth + 1);
        }
    }

    fn children(&mut self, names: &[&String], indent: &str, depth: usize) {
        for (at, name) in names.iter().enumerate() {
            let (branch, below) = match at + 1 == names.len() {
                true => ("└── ", "    "),
                false => ("├── ", "│   "),
            };
            self.draw(name, &format!("{indent}{branch}"), &format!("{indent}{below}"), depth);
        }
    }
}
