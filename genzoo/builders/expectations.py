"""What you should see while a model of each family trains: a few sentences for its report."""

DIFFUSION = (
    "The first grids look like noise, above all those of an average: it still holds the weights of "
    "the start. The loss falls fast and then stays flat while samples keep improving, because "
    "most of it is noise that no network could predict: watch the loss by quarter of t, and the "
    "samples, rather than the loss as a whole. Large shapes come first, texture last."
)
EDM = (
    "The loss is weighted so that it begins near 1 at every noise level; it then flattens while "
    "samples keep improving, because what is left is noise that no network could predict. An early "
    "average still holds the weights of the start, so its samples look like noise."
)
FLOW_MATCHING = (
    "The loss does not go to zero: where paths cross, the network can only learn their mean "
    "velocity, and the spread around it stays. It flattens early while samples keep improving. An "
    "early average still holds the weights of the start, so its samples look like noise."
)
VDM = (
    "The loss is a bound on -log p in nats and falls smoothly. Its largest part is the diffusion "
    "term; the prior term should be near zero, and the reconstruction term small. A good bound and "
    "good samples are not the same: samples improve long after the bound has flattened."
)
CONTROLNET = (
    "The first grids are samples of the base, which the branch does not change yet. For a while "
    "they only become worse or remain what they are; then, often within a few hundred steps, they "
    "follow the hints. The loss hardly shows it, because most of it is noise that no network could "
    "predict: watch the samples beside their hints."
)
CASCADE = (
    "There is nothing to train: the models are put together. Compare samples at several levels of "
    "sample.noise: without noise, errors of the small images stay visible; with too much, the "
    "large ones lose what the small ones have decided."
)
CLASSIFIER = (
    "The accuracy is high at little noise and falls to chance at the most, where there is nothing "
    "left to see. A training loss far below that of the test set means that the classifier has "
    "memorised, and guides towards its own mistakes."
)
PCA = (
    "There is no training: one pass over the data gives the answer. The error is the variance that "
    "the components leave out, and no linear code of this size has a smaller one."
)
AUTOENCODER = (
    "The loss falls steadily, and reconstructed images are blurred before they are sharp: edges "
    "cost most and come last. A small training error beside a larger test error means that the "
    "code copies and does not summarise."
)
MAE = (
    "The loss falls at once to what the mean of each patch explains, stays there for a while, and "
    "then falls slowly for as long as you train: completed images go from blurs to outlines. With "
    "normalised patches it begins near 1. Judge the representation by --mode=probe, not by the "
    "loss."
)
CONTRASTIVE = (
    "The loss begins at chance, ln(2N - 1) for two views of N images or ln N for N pairs of images "
    "and texts, and so depends on the batch size: compare it within one run only. Its accuracy is "
    "the share of examples whose partner is the nearest of the batch. A loss that stays at chance "
    "means that all embeddings are the same: lower the learning rate or warm up for longer."
)
TEXT_ENCODER = (
    "There is no training: the weights are pretrained or random, and the loss is zero. Try the "
    "representation with --mode=retrieve, and the tokens by training a model that attends to them."
)
GAN = (
    "Neither loss falls for long: each player answers the other. What shows progress is the "
    "pictures. The critic should rank most pairs correctly, but not all: if `ranked_critic` stays "
    "near 1 and the generator's loss grows, raise family.penalty; if all samples look alike, the "
    "generator has collapsed: start again with a larger penalty or a smaller learning rate."
)
VAE = (
    "The KL divergence is what the code costs and the reconstruction what it buys. A KL near zero "
    "means that the decoder ignores its code (posterior collapse): reconstructions then all look "
    "alike. Samples of images are blurred, since the mean of the decoder is shown."
)
VQVAE = (
    "The reconstruction loss falls quickly; the perplexity counts the codes in use, and should "
    "rise after the start and stay well above one. A small and falling perplexity means that the "
    "codebook has collapsed. A loss that rises late is often the commitment term, not the picture."
)
KL_AUTOENCODER = (
    "The loss is in nats and falls far below zero as its scale, which is learned, shrinks with the "
    "error. Before the critic joins at family.critic_after, reconstructions are smooth; after it "
    "the error may rise a little while texture returns. The critic's loss should stay between 0 "
    "and 1: near 0 it has won, and family.critic_weight should be lower."
)
VQGAN = (
    "The perplexity counts the codes in use, and should rise after the start and stay well above "
    "one. Before the critic joins at family.critic_after, reconstructions are smooth; after it the "
    "error may rise a little while texture returns. The critic's loss should stay between 0 and 1: "
    "near 0 it has won, and family.critic_weight should be lower."
)
DVAE = (
    "The temperature falls while the weight of the KL rises, so that the loss may go up while the "
    "model improves. A KL near zero means that the codes carry nothing; reconstructions sharpen as "
    "the codes become discrete."
)
TOKEN_PRIOR = (
    "The loss is in nats per image and starts near the number of codes times the logarithm of the "
    "size of the codebook, which is what guessing costs. Samples have local texture early and "
    "global shape late. The test loss turns up first: that is overfitting."
)
