"What users call, for `from fastai_resup.all import *` after fastai's own star import; everything else is imported from its module"
from .mixture import BetaMixture, DegenerateMixtureError, clean_lookup, p_clean, step_lookup
from .losses import ReSupLoss, WeightedLoss, gce_loss, sce_loss, similarity, soft_accuracy
from .models import PairedModel
from .networks import create_net, lite_weights, read_weights, speed_up_cpu
from .passes import ordered_pass
from .trusted import clean_shares, reviewed_labels
from .callbacks import EpochCount, LossReweight, MixtureRefit, PairMetrics, ReSup, presets
from .learner import ReSupLearner, resup_learner
from .checkpoint import Checkpoint
from .distributed import DistributedPair
from .deploy import to_onnx
from .synth import draw_face, face_sheet, make_faces
from .data import (FERDataLoaders, FERImage, fer_block, items_table, subset_dls, unreadable_images,
                   affectnet_schemes, fer2013_classes, write_fer2013,
                   ferplus_classes, ferplus_labels, ferplus_probs, ferplus_votes, read_ferplus_votes, vote_disagreement,
                   join_rafdb, rafdb_classes, read_label_list,
                   NoiseManifest, class_noise, instance_noise, matrix_noise, noise_models, noise_report, pair_noise, symmetric_noise,
                   read_decisions, save_decisions)
from .audit import (LabelAudit, Review, annotator_quality, compare_votes, consensus_labels, embeddings, find_twins,
                    label_table, plot_votes, read_annotations, score_ranking, show_suspects)
from .peers import CoTeaching, DivideMix, EAC, ELR, GCE, LabelSmoothing, MCorrection, Peer, RUL, SCE, SCN, peers
