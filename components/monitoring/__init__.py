"""Watches the images that come in: do they still look as those did that the classifier was trained on?"""
