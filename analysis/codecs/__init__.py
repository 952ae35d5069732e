"""Conventional codecs, run here on a folder of images: bits of the whole file, PSNR of the decoded pixels."""
