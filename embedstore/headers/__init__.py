"""What files say of themselves before a pixel is read: DICOM headers, frames, modality."""
