"""Pretrained text models, tuned for a shop: tasks, methods, training, evaluation. torch is imported by the parts."""
