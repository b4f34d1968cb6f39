//! The limits that a configuration can set, drawn, written as TOML, and looked up by path.

use std::fmt::Write as _;

use super::op::Choices;

/// Limits of one directory.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bounds {
    pub bytes: Option<u64>,
    pub files: Option<u64>,
    pub dirs: Option<u64>,
    pub file_size: Option<u64>,
}

/// All limits of a store: the mount, every directory of the second level, and two by their names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LimitSet {
    pub mount: Bounds,
    pub campaign: Bounds,
    pub a: Bounds,
    pub a_b: Bounds,
}

impl Bounds {
    fn draw(from: &mut impl Choices, times: u64) -> Self {
        let mut one = |chance: u64, least: u64, most: u64| {
            (from.below(chance) == 0).then(|| times * (least + from.below(most - least)))
        };
        Self {
            bytes: one(2, 1_000, 30_000),
            files: one(3, 1, 9),
            dirs: one(4, 1, 8),
            file_size: one(5, 1_000, 20_000),
        }
    }

    /// Whether nothing is limited.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    fn over(self, template: Self) -> Self {
        Self {
            bytes: self.bytes.or(template.bytes),
            files: self.files.or(template.files),
            dirs: self.dirs.or(template.dirs),
            file_size: self.file_size.or(template.file_size),
        }
    }

    fn write(self, text: &mut String) {
        let keys = [
            ("max_bytes", self.bytes),
            ("max_files", self.files),
            ("max_dirs", self.dirs),
            ("max_file_size", self.file_size),
        ];
        for (key, value) in keys {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
    }
}

impl LimitSet {
    /// Some limits, or none at all.
    pub fn draw(from: &mut impl Choices) -> Self {
        match from.below(6) {
            0 => Self::default(),
            1 => Self {
                mount: Bounds::draw(from, 3),
                ..Self::default()
            },
            _ => Self {
                mount: Bounds::draw(from, 4),
                campaign: Bounds::draw(from, 1),
                a: Bounds::draw(from, 2),
                a_b: Bounds::draw(from, 1),
            },
        }
    }

    /// As the configuration file says it.
    pub fn to_toml(&self) -> String {
        let mut text = "[mount]\n".to_owned();
        self.mount.write(&mut text);
        // One thread answers requests in their order, so a close is over before what follows it.
        text.push_str("[service]\nthreads = 1\n");
        text.push_str("[[rules]]\npath = \"{tenant}/{campaign}\"\n[rules.limits.campaign]\n");
        self.campaign.write(&mut text);
        for (path, bounds) in [("a", self.a), ("a/b", self.a_b)] {
            if !bounds.is_none() {
                let _ = writeln!(text, "[[exceptions]]\npath = \"{path}\"");
                bounds.write(&mut text);
            }
        }
        text
    }

    /// What holds for the directory with this path.
    pub fn of(&self, components: &[&str]) -> Bounds {
        match components {
            [] => self.mount,
            ["a"] => self.a,
            ["a", "b"] => self.a_b.over(self.campaign),
            [_, _] => self.campaign,
            _ => Bounds::default(),
        }
    }
}
