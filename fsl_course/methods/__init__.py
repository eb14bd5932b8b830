"""The methods, one paper a file: ``from fsl_course.methods.prototypical import PrototypicalNetwork``.

base           what every learner defines, and how support labels and embeddings are used
baselines      chance, nearest picture, random features: what every method must beat
transfer       plain classification of base classes, then a small classifier for each task (Chen et al. 2019)
simple_shot    plain classification, then the nearest class mean of centred features (Wang et al. 2019)
siamese        pairs of pictures (Koch et al. 2015)
matching       attention over the support (Vinyals et al. 2016)
prototypical   nearest class mean (Snell et al. 2017)
relation       a learned comparison (Sung et al. 2018)
maml           a learned initialisation (Finn et al. 2017)
anil           MAML whose inner loop adapts only the head (Raghu et al. 2020)
meta_sgd       MAML with learned rates (Li et al. 2017)
reptile        an initialisation without second derivatives (Nichol et al. 2018)
meta_lstm      a learned optimiser (Ravi, Larochelle 2017)
in_context     a transformer that reads the support and answers, without an update (Garg et al. 2022)
ridge          a linear head solved in closed form (Bertinetto et al. 2019)
hypernetwork   a network that writes the linear head (Ha et al. 2017)
graph          messages along learned edges between the pictures of a task (Garcia, Bruna 2018)
label_propagation  labels that flow along a graph of support and queries (Liu et al. 2019)
soft_kmeans    prototypes refined by unlabelled pictures (Ren et al. 2018)
unsupervised   prototypes learned from pictures alone, without labels (Medina et al. 2020)
zero_shot      classes known by their descriptions alone (Snell et al. 2017, Romera-Paredes, Torr 2015)
dense          where in a scene a class is, by prototypes of object and background (Wang et al. 2019)
maml_rl        a policy to start from, and steps up its own return (Finn et al. 2017, Foerster et al. 2018)
recurrent_rl   a recurrent policy whose memory learns the task (Duan et al. 2016)
continual      classes that come session by session: running means, replay, EWC (Kirkpatrick et al. 2017)
adapters       few numbers beside a frozen encoder, fitted to each task (Li et al. 2022)
"""
