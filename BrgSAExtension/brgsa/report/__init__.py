"""What is handed on of a scored scan: one HTML page for people, DICOM SR for archives."""
