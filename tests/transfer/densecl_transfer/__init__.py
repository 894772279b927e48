"""Fine-tunes networks of others (torchvision's) from pre-trained backbones, and has them judged.

What is pre-trained here proves itself elsewhere: detectors and segmenters are torchvision's, box
and mask AP are pycocotools', and a backbone gets into them only through
`densecl-trainer convert --to torchvision`. Nothing of the trainer's own code is used.

A *protocol* (protocols/*.toml) says what is trained on what and for how long; a *run* is one
protocol from one initialisation with one seed; a *table* compares initialisations over seeds.
"""
