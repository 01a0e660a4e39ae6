//! A Llama's weights: the tensors of its file, laid out for speed (q, k, v in one matrix; gate and
//! up in another), and the table that says where each named tensor of the file lies in them.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use tch::{Device, Kind, Tensor};

use super::devices::Devices;
use super::reading::Reading;
use crate::config::Config;
use crate::files::Files;
use crate::record::Fingerprint;

/// All weights. Matrices are `[out, in]`, as in the file.
#[derive(Debug)]
pub(crate) struct Weights {
    /// `[Vocab, DModel]`
    pub(crate) embed: Tensor,
    pub(crate) blocks: Vec<Block>,
    /// `[DModel]`
    pub(crate) ln_final: Tensor,
    /// `[Vocab, DModel]`; the embedding itself where the model ties them.
    pub(crate) unembed: Tensor,
    pub(crate) devices: Devices,
    /// The hash of all of them, found when first asked for.
    pub(crate) fingerprint: Fingerprint,
}

/// The weights of one block.
#[derive(Debug)]
pub(crate) struct Block {
    /// `[DModel]`
    pub(crate) ln1: Tensor,
    /// Rows: all query heads, then all key heads, then all value heads.
    pub(crate) qkv: Linear,
    /// Columns: the query heads' outputs.
    pub(crate) o: Linear,
    /// `[DModel]`
    pub(crate) ln2: Tensor,
    /// Rows: gate, then up.
    pub(crate) gate_up: Linear,
    pub(crate) down: Linear,
}

/// `y = x Wᵀ + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[out, in]`
    pub(crate) w: Tensor,
    /// `[out]`
    pub(crate) b: Option<Tensor>,
}

impl Linear {
    fn empty(out: usize, input: usize, bias: bool, options: (Kind, Device)) -> Self {
        let w = Tensor::empty([out as i64, input as i64], options);
        Linear { w, b: bias.then(|| Tensor::empty([out as i64], options)) }
    }

    /// `x [.., in]` -> `[.., out]`. Always a 2-D product: libtorch's 3-D ones can be far slower.
    pub(crate) fn apply(&self, x: &Tensor) -> Tensor {
        product(x, &self.w, self.b.as_ref())
    }

    fn shallow_clone(&self) -> Self {
        Linear { w: self.w.shallow_clone(), b: self.b.as_ref().map(Tensor::shallow_clone) }
    }

    fn tensors(&self) -> Vec<&Tensor> {
        std::iter::once(&self.w).chain(&self.b).collect()
    }
}

/// `x [.., in]` times `wᵀ`, `w [out, in]`, plus `b`.
pub(crate) fn product(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Tensor {
    let mut shape = x.size();
    let input = shape.pop().unwrap_or(1);
    shape.push(w.size()[0]);
    x.reshape([-1, input]).linear(w, b).reshape(shape)
}

/// Where a tensor of the file lies: a field of a block, and which rows of it.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Embed,
    LnFinal,
    Unembed,
    Ln1(usize),
    Ln2(usize),
    Matrix(usize, Field, Rows),
    Bias(usize, Field, Rows),
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Qkv,
    O,
    GateUp,
    Down,
}

/// First row and number of rows.
type Rows = (i64, i64);

/// A tensor of the file: name, shape, place.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    slot: Slot,
}

/// Every tensor a file of this config holds, in the order of the forward pass.
pub(crate) fn specs(config: &Config) -> Vec<Spec> {
    let c = config;
    let (d, v, f) = (c.d_model as i64, c.d_vocab as i64, c.d_mlp as i64);
    let (q, kv) = ((c.n_heads * c.d_head) as i64, (c.n_kv_heads * c.d_head) as i64);
    let mut list = Vec::new();
    let mut add = |name: String, shape: Vec<i64>, slot| list.push(Spec { name, shape, slot });
    add("model.embed_tokens.weight".into(), vec![v, d], Slot::Embed);
    for l in 0..c.n_layers {
        let name = |part: &str| format!("model.layers.{l}.{part}");
        add(name("input_layernorm.weight"), vec![d], Slot::Ln1(l));
        add(name("post_attention_layernorm.weight"), vec![d], Slot::Ln2(l));
        let matrices = [
            ("self_attn.q_proj", Field::Qkv, 0, q, d, c.attention_bias),
            ("self_attn.k_proj", Field::Qkv, q, kv, d, c.attention_bias),
            ("self_attn.v_proj", Field::Qkv, q + kv, kv, d, c.attention_bias),
            ("self_attn.o_proj", Field::O, 0, d, q, c.attention_bias),
            ("mlp.gate_proj", Field::GateUp, 0, f, d, c.mlp_bias),
            ("mlp.up_proj", Field::GateUp, f, f, d, c.mlp_bias),
            ("mlp.down_proj", Field::Down, 0, d, f, c.mlp_bias),
        ];
        for (part, field, first, rows, input, bias) in matrices {
            let matrix = Slot::Matrix(l, field, (first, rows));
            add(name(&format!("{part}.weight")), vec![rows, input], matrix);
            if bias {
                add(name(&format!("{part}.bias")), vec![rows], Slot::Bias(l, field, (first, rows)));
            }
        }
    }
    add("model.norm.weight".into(), vec![d], Slot::LnFinal);
    if !c.tied {
        add("lm_head.weight".into(), vec![v, d], Slot::Unembed);
    }
    list
}

/// The kind that holds every stored tensor exactly: where files mix kinds, the widest needed.
fn stored_kind(kinds: impl Iterator<Item = Option<Kind>>) -> Kind {
    let mut kinds: Vec<_> = kinds.flatten().collect();
    kinds.dedup();
    match kinds.as_slice() {
        [one] => *one,
        many if many.contains(&Kind::Double) => Kind::Double,
        _ => Kind::Float,
    }
}

/// Tensors that old checkpoints hold and that are computed here.
fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq")
}

impl Weights {
    fn empty(config: &Config, kind: Kind, devices: &Devices) -> Self {
        let c = config;
        let (d, v) = (c.d_model as i64, c.d_vocab as i64);
        let (first, last) = ((kind, devices.first()), (kind, devices.last(c.tied)));
        let embed = Tensor::empty([v, d], first);
        let unembed = if c.tied { embed.shallow_clone() } else { Tensor::empty([v, d], last) };
        let block = |layer| Self::empty_block(c, (kind, devices.of(layer)));
        let blocks = (0..c.n_layers).map(block).collect();
        let (ln_final, devices) = (Tensor::empty([d], last), devices.clone());
        let fingerprint = Fingerprint::new(Vec::new());
        Weights { embed, blocks, ln_final, unembed, devices, fingerprint }.fingerprinted(config)
    }

    fn empty_block(c: &Config, options: (Kind, Device)) -> Block {
        let (d, q, kv) = (c.d_model as i64, c.n_heads * c.d_head, c.n_kv_heads * c.d_head);
        Block {
            ln1: Tensor::empty([d], options),
            qkv: Linear::empty(q + 2 * kv, c.d_model, c.attention_bias, options),
            o: Linear::empty(c.d_model, q, c.attention_bias, options),
            ln2: Tensor::empty([d], options),
            gate_up: Linear::empty(2 * c.d_mlp, c.d_model, c.mlp_bias, options),
            down: Linear::empty(c.d_model, c.d_mlp, c.mlp_bias, options),
        }
    }

    /// With a fingerprint of its own tensors.
    fn fingerprinted(mut self, config: &Config) -> Self {
        self.fingerprint = Fingerprint::new(self.named(config));
        self
    }

    /// Reads the weights of a directory, with its first `n_layers` blocks, converting to `kind`
    /// (absent: as stored).
    pub(crate) fn load(
        (config, n_layers): (&Config, usize),
        files: &Files,
        devices: &Devices,
        kind: Option<Kind>,
    ) -> Result<Self> {
        // Before the table is made: a config can claim billions of layers, its file cannot.
        let found = files.names().count();
        ensure!(
            found >= config.n_layers,
            "config.json says {} layers, the weights hold {found} tensors in all",
            config.n_layers
        );
        let held = &Config { n_layers, ..config.clone() };
        let (all, specs) = (specs(config), specs(held));
        let what = |name: &str| format!("{}: {name}", files.file(name));
        for Spec { name, shape, .. } in &specs {
            let found = files
                .shape(name)
                .with_context(|| format!("the weights lack {name}, expected {shape:?}"))?;
            ensure!(found == shape, "{} is {found:?}, expected {shape:?}", what(name));
            let kind = files.kind(name);
            ensure!(
                kind != Some(Kind::Int64),
                "{} is stored as I64: expected a floating kind",
                what(name)
            );
        }
        let known: std::collections::HashSet<_> = all.iter().map(|s| s.name.as_str()).collect();
        let tied_copy = |name: &str| config.tied && name == "lm_head.weight";
        for name in files.names() {
            ensure!(
                known.contains(name) || is_derived(name) || tied_copy(name),
                "{} is not part of a Llama with this config: nothing would use it",
                what(name)
            );
        }
        let kind = kind.unwrap_or_else(|| stored_kind(specs.iter().map(|s| files.kind(&s.name))));
        let weights = Self::empty(held, kind, devices);
        let mut reading = Reading::new(files, &specs);
        for spec in &specs {
            let target = weights.view(spec.slot);
            files.read(&spec.name, |row, rows| {
                target.narrow(0, row, rows.size()[0]).f_copy_(rows)?;
                reading.add(rows)
            })?;
        }
        if config.tied && files.shape("lm_head.weight").is_some() {
            weights.check_tied(files)?;
        }
        Ok(weights)
    }

    /// A file may hold an unembedding although its config ties it: it must be the embedding.
    fn check_tied(&self, files: &Files) -> Result<()> {
        let name = "lm_head.weight";
        let v = self.embed.size()[0];
        ensure!(
            files.shape(name) == Some(self.embed.size().as_slice()),
            "{name} is {:?}, expected {:?}",
            files.shape(name),
            self.embed.size()
        );
        files.read(name, |row, rows| {
            let n = rows.size()[0].min(v - row);
            let own = self.embed.narrow(0, row, n);
            let rows = rows.to_device(own.device()).to_kind(own.kind());
            ensure!(
                own.equal(&rows),
                "config.json ties the embeddings, but lm_head.weight differs from model.embed_tokens.weight"
            );
            Ok(())
        })
    }

    /// Copies tensors given by their names in a file.
    pub(crate) fn from_tensors(
        config: &Config,
        tensors: &HashMap<String, Tensor>,
        devices: &Devices,
        kind: Kind,
    ) -> Result<Self> {
        ensure!(
            tensors.len() >= config.n_layers,
            "the config says {} layers, {} tensors were given",
            config.n_layers,
            tensors.len()
        );
        let specs = specs(config);
        for Spec { name, shape, .. } in &specs {
            let given = tensors
                .get(name)
                .with_context(|| format!("no tensor {name}, expected {shape:?}"))?;
            ensure!(given.size() == *shape, "{name} is {:?}, expected {shape:?}", given.size());
        }
        if let Some(extra) = tensors.keys().find(|name| !specs.iter().any(|s| s.name == **name)) {
            bail!("{extra} is not part of a Llama with this config: nothing would use it");
        }
        let _guard = tch::no_grad_guard();
        let weights = Self::empty(config, kind, devices);
        for spec in &specs {
            weights.view(spec.slot).f_copy_(&tensors[&spec.name])?;
        }
        Ok(weights)
    }

    /// Every tensor by its name in a file, as views of the memory used here.
    pub(crate) fn named(&self, config: &Config) -> Vec<(String, Tensor)> {
        let held = Config { n_layers: self.blocks.len(), ..config.clone() };
        specs(&held).into_iter().map(|spec| (spec.name, self.view(spec.slot))).collect()
    }

    fn view(&self, slot: Slot) -> Tensor {
        let rows = |t: &Tensor, (first, n): Rows| t.narrow(0, first, n);
        match slot {
            Slot::Embed => self.embed.shallow_clone(),
            Slot::LnFinal => self.ln_final.shallow_clone(),
            Slot::Unembed => self.unembed.shallow_clone(),
            Slot::Ln1(l) => self.blocks[l].ln1.shallow_clone(),
            Slot::Ln2(l) => self.blocks[l].ln2.shallow_clone(),
            Slot::Matrix(l, field, part) => rows(&self.blocks[l].linear(field).w, part),
            Slot::Bias(l, field, part) => {
                let linear = self.blocks[l].linear(field);
                rows(linear.b.as_ref().unwrap_or(&linear.w), part)
            }
        }
    }

    /// The same numbers in memory of their own, without a graph.
    pub(crate) fn copy(&self, config: &Config) -> Self {
        let _guard = tch::no_grad_guard();
        let own = |t: &Tensor| t.detach().copy();
        let linear = |x: &Linear| Linear { w: own(&x.w), b: x.b.as_ref().map(own) };
        let block = |b: &Block| Block {
            ln1: own(&b.ln1),
            qkv: linear(&b.qkv),
            o: linear(&b.o),
            ln2: own(&b.ln2),
            gate_up: linear(&b.gate_up),
            down: linear(&b.down),
        };
        let embed = own(&self.embed);
        let tied = self.unembed.data_ptr() == self.embed.data_ptr();
        let unembed = if tied { embed.shallow_clone() } else { own(&self.unembed) };
        let blocks = self.blocks.iter().map(block).collect();
        let (ln_final, devices) = (own(&self.ln_final), self.devices.clone());
        let fingerprint = self.fingerprint.clone();
        Weights { embed, blocks, ln_final, unembed, devices, fingerprint }.fingerprinted(config)
    }

    /// The tensors as they lie in memory: what an optimizer changes.
    pub(crate) fn tensors(&self) -> Vec<&Tensor> {
        let mut list = vec![&self.embed];
        for block in &self.blocks {
            list.extend([&block.ln1, &block.ln2]);
            for linear in [&block.qkv, &block.o, &block.gate_up, &block.down] {
                list.extend(linear.tensors());
            }
        }
        list.push(&self.ln_final);
        list.push(&self.unembed);
        list
    }
}

impl Block {
    fn linear(&self, field: Field) -> &Linear {
        match field {
            Field::Qkv => &self.qkv,
            Field::O => &self.o,
            Field::GateUp => &self.gate_up,
            Field::Down => &self.down,
        }
    }
}

impl Clone for Weights {
    /// Shares the memory.
    fn clone(&self) -> Self {
        let block = |b: &Block| Block {
            ln1: b.ln1.shallow_clone(),
            qkv: b.qkv.shallow_clone(),
            o: b.o.shallow_clone(),
            ln2: b.ln2.shallow_clone(),
            gate_up: b.gate_up.shallow_clone(),
            down: b.down.shallow_clone(),
        };
        Weights {
            embed: self.embed.shallow_clone(),
            blocks: self.blocks.iter().map(block).collect(),
            ln_final: self.ln_final.shallow_clone(),
            unembed: self.unembed.shallow_clone(),
            devices: self.devices.clone(),
            fingerprint: self.fingerprint.clone(),
        }
    }
}
