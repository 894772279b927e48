// Nothing of this header of Gloo is needed; see README.md.
#pragma once
