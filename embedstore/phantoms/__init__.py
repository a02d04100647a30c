"""Computer-drawn images in the true formats of MURA and RSNA Lumbar; they show no patient."""
