"""The heads themselves: scikit-learn classifiers that `head` names."""
