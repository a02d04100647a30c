"""DICOM files -> exact pixels, and pixels -> the square that an encoder takes."""
