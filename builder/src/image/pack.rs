//! Which store paths share a layer.
//!
//! # The cost model
//!
//! - A layer costs a client [`LAYER_MILLISECONDS`] whenever it is unpacked, whatever its size.
//! - Bytes arrive at [`BYTES_PER_SECOND`].
//! - When one member of a layer changes, the whole layer is fetched again, and all layers above
//!   are unpacked again: engines name an unpacked layer by everything below it.
//! - The workload is a first pull and those after each rebuild. Meanwhile a unit changes
//!   [`CHANGES_PER_THOUSAND`]` / 1000` times, and a layer is unpacked [`UNPACKS`] times, by class.
//!
//! What one source package gave to an image is updated together, so it is one *unit* and stays together.
//! Take `k` units of `s` bytes that each change `r` times, in a place that is unpacked `u` times.
//! Together they cost `u` unpackings, and are fetched `k r` times with `k s` bytes; per unit that is
//! `T u / k + k r s / B`, which is least at `k = sqrt(T u B / (r s))`. Its inverse is a unit's
//! *weight*: the part of a layer that it should have. At a weight of one or more a unit has a
//! layer of its own.
//!
//! # Boundaries
//!
//! Each place between two neighbours in the order has a *strength*, and there is a boundary where
//! it is at least one. A unit whose source's name hashes to `h` in (0, 1] gives the place before it the
//! strength `weight / h`: that is one or more for just that part of all names. Both sides of a
//! unit with a weight of one or more, and the end of a group of classes, are boundaries too.
//! Nothing in this depends on the rest of the image. So images share packs; adding a package
//! changes the pack that it joins or splits and at most that pack's neighbours; an update changes no
//! boundary, unless a unit grows or shrinks past a power of two (only then does its weight change).
//!
//! When there may be only `n` layers, the `n - 1` strongest boundaries remain.

use std::cmp::Reverse;
use std::num::NonZeroUsize;

use super::ImageError;
use super::order::CLASS_COUNT;
use crate::spec::Layers;

/// The most layers of an image, a base image's included: engines fail from 125 on.
pub const LAYER_LIMIT: usize = 100;

/// What a layer costs a client, whatever its size (docker 20.10: 50 ms, podman 4.3: 33 ms).
pub const LAYER_MILLISECONDS: u64 = 50;

/// How fast a client downloads.
pub const BYTES_PER_SECOND: u64 = 25_000_000;

/// By class: how often a thousand units of it change during the workload.
///
/// Chosen with `examples/simulate_packing.rs`. Bookworm's history shows more changes for classes
/// 4 and 5; but boundaries by hash divide unevenly, and fewer layers make up for that.
pub const CHANGES_PER_THOUSAND: [u64; CLASS_COUNT as usize] =
    [100, 100, 100, 3000, 3500, 3500, 5500, 5500];

/// By class: how often a layer of it is unpacked during the workload, since it or one below changed.
pub const UNPACKS: [u64; CLASS_COUNT as usize] = [6, 6, 7, 31, 37, 43, 51, 51];

/// Classes from here on are not packed with classes below: what changes stays off what does not, and
/// what all images share off what few have.
const GROUP_STARTS: [u8; 2] = [1, 3];

/// One store path that an image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackItem {
    /// The package's name.
    pub name: String,
    /// Its source package's name.
    pub source: String,
    /// Its class in the suite's [table](super::order::OrderTable).
    pub class: u8,
    /// The bytes of its layer when compressed alone.
    pub compressed_size: u64,
    /// Whether it is the image's own (configuration, recipes, files, finish) and not a package.
    pub is_own: bool,
}

/// How many layers an image gets: `[image] layers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayersOption {
    /// As many as the cost model finds best.
    #[default]
    Packed,
    /// One for each store path, as far as the limit allows.
    Each,
    /// This many, or fewer if there are fewer store paths or the limit is lower; the base's not counted.
    Count(NonZeroUsize),
}

impl From<&Layers> for LayersOption {
    fn from(layers: &Layers) -> Self {
        match layers {
            Layers::Packed => Self::Packed,
            Layers::Each => Self::Each,
            Layers::Count(count) => {
                NonZeroUsize::new(*count as usize).map_or(Self::Packed, Self::Count)
            }
        }
    }
}

/// One layer: the positions of its members in the input, in the order in which they stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// Positions in the input; never empty.
    pub members: Vec<usize>,
}

/// Divides an image's store paths into layers, lowest first.
///
/// Packages may be given in any order and are sorted by (class, source, name). The image's own items
/// lie above them in the order given, since later ones override earlier ones, and each has a
/// layer of its own while the limit allows. `reserved` is the number of a base image's layers.
///
/// # Errors
/// The base image's layers leave no room.
pub fn plan_layers(
    items: &[PackItem],
    option: LayersOption,
    reserved: usize,
) -> Result<Vec<LayerPlan>, ImageError> {
    let room = LAYER_LIMIT.saturating_sub(reserved);
    if room == 0 && !items.is_empty() {
        return Err(ImageError::TooManyBaseLayers { reserved, limit: LAYER_LIMIT });
    }
    let order = stacking_order(items);
    let units = units(items, &order);
    let strengths: Vec<Strength> =
        units.windows(2).map(|pair| Strength::between(&pair[0], &pair[1])).collect();
    let boundaries = choose_boundaries(&strengths, option, room);

    let mut plans: Vec<LayerPlan> = Vec::new();
    for (position, &item) in order.iter().enumerate() {
        match plans.last_mut() {
            Some(plan) if !boundaries[position - 1] => plan.members.push(item),
            _ => plans.push(LayerPlan { members: vec![item] }),
        }
    }
    Ok(plans)
}

/// The positions of the items in stacking order.
fn stacking_order(items: &[PackItem]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    // Own items have equal keys, and the sort is stable: they stay in the order given.
    order.sort_by_key(|&position| {
        let item = &items[position];
        let key = (!item.is_own).then_some((item.class, &item.source, &item.name));
        (item.is_own, key)
    });
    order
}

/// What one source gave to one class of the image, or one item of the image's own.
#[derive(Clone, Copy)]
struct Unit<'a> {
    /// None for the image's own items, which are no units with each other.
    source: Option<&'a str>,
    /// The name of the item at this place of the order.
    name: &'a str,
    class: u8,
    /// The bytes of the whole unit.
    size: u64,
}

/// For each item in stacking order, the unit that it belongs to.
fn units<'a>(items: &'a [PackItem], order: &[usize]) -> Vec<Unit<'a>> {
    let is_one = |first: &usize, second: &usize| {
        let (first, second) = (&items[*first], &items[*second]);
        !first.is_own
            && !second.is_own
            && (first.class, &first.source) == (second.class, &second.source)
    };
    let mut units = Vec::with_capacity(order.len());
    for members in order.chunk_by(is_one) {
        let size =
            members.iter().map(|&item| items[item].compressed_size).fold(0, u64::saturating_add);
        units.extend(members.iter().map(|&item| {
            let PackItem { name, source, class, is_own, .. } = &items[item];
            let source = (!is_own).then_some(source.as_str());
            Unit { source, name, class: *class, size }
        }));
    }
    units
}

/// For each place between neighbours, whether it is a boundary.
fn choose_boundaries(strengths: &[Strength], option: LayersOption, room: usize) -> Vec<bool> {
    let wanted = match option {
        LayersOption::Packed => strengths.iter().filter(|strength| strength.is_boundary()).count(),
        LayersOption::Each => strengths.len(),
        LayersOption::Count(count) => count.get() - 1,
    };
    let mut ranked: Vec<usize> = (0..strengths.len()).collect();
    ranked.sort_by_key(|&place| Reverse((&strengths[place], place)));
    let mut boundaries = vec![false; strengths.len()];
    for &place in ranked.iter().take(wanted.min(room.saturating_sub(1))) {
        boundaries[place] = true;
    }
    boundaries
}

/// How much a place wants to be a boundary, comparable across all places of all images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Strength {
    /// The squared strength in units of 1/2^24: squared, so that no root has to be rounded.
    square: u128,
    /// Decides between equal strengths.
    tie: u32,
}

/// The least strength of a boundary.
const ONE: u128 = 1 << 24;

impl Strength {
    fn between(below: &Unit<'_>, above: &Unit<'_>) -> Self {
        let (Some(source_below), Some(source_above)) = (below.source, above.source) else {
            return Self { square: u128::MAX, tie: 0 };
        };
        if (below.class, source_below) == (above.class, source_above) {
            return Self { square: 0, tie: name_hash(above.name) };
        }
        let tie = name_hash(source_above);
        let weight = Weight::of(above);
        let by_name = weight.square_over(tie);
        let by_size = weight.square().max(Weight::of(below).square());
        let by_size = if by_size >= ONE { by_size } else { 0 };
        let by_class = if group(below.class) == group(above.class) { 0 } else { ONE };
        Self { square: by_name.max(by_size).max(by_class), tie }
    }

    const fn is_boundary(self) -> bool {
        self.square >= ONE
    }
}

/// The part of a layer that a unit should have, as the fraction that its square is.
struct Weight {
    numerator: u128,
    denominator: u128,
}

impl Weight {
    fn of(unit: &Unit<'_>) -> Self {
        let class = usize::from(unit.class.min(CLASS_COUNT - 1));
        // The middle of the sizes with this power of two; 64 GiB is where the arithmetic would end.
        let power = unit.size.max(1).ilog2().min(35);
        let size = 3 * (1_u128 << power) / 2;
        Self {
            numerator: u128::from(CHANGES_PER_THOUSAND[class]) * size,
            denominator: u128::from(LAYER_MILLISECONDS * BYTES_PER_SECOND * UNPACKS[class]),
        }
    }

    /// The weight's square in units of 1/2^24.
    const fn square(&self) -> u128 {
        (self.numerator << 24) / self.denominator
    }

    /// The square of the weight divided by `hash` / 2^24, in units of 1/2^24.
    fn square_over(&self, hash: u32) -> u128 {
        let hash = u128::from(hash);
        (self.numerator << 72) / (self.denominator * hash * hash)
    }
}

/// Spreads names evenly over 1 to 2^24. Frozen: it decides which packages share a layer.
fn name_hash(name: &str) -> u32 {
    let hash = blake3::hash(name.as_bytes());
    let [first, second, third, ..] = *hash.as_bytes();
    u32::from_be_bytes([0, first, second, third]) + 1
}

/// The number of the group of classes whose packages may share layers.
fn group(class: u8) -> usize {
    GROUP_STARTS.iter().filter(|&&start| class >= start).count()
}

#[cfg(test)]
mod tests;
