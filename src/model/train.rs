//! Weights that can be trained: the same forward page, with a graph that reaches them.

use tch::Tensor;

use super::Model;

impl Model {
    /// A copy whose weights require gradients. Run it with `Plan::differentiable`, and change the
    /// tensors that [`parameters`](Self::parameters) gives.
    pub fn trainable(&self) -> Model {
        let copy = Model { weights: self.weights.copy(), ..self.clone() };
        for tensor in copy.parameters() {
            let _ = tensor.set_requires_grad(true);
        }
        copy
    }

    /// The tensors an optimizer changes, as they lie in memory (q, k, v in one; gate, up in one):
    /// handles on this model's weights, each once.
    pub fn parameters(&self) -> Vec<Tensor> {
        let mut list = self.weights.tensors();
        if self.config.tied {
            list.pop(); // the unembedding is the embedding
        }
        list.into_iter().map(Tensor::shallow_clone).collect()
    }
}
